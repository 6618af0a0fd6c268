// The service, as the page sees it: one function per question, one kind of error with a name the page has words for.

const PATIENCE_MS = 60_000;
let key = ""; // in memory only: gone when the window closes

const KINDS = {
  401: "unauthorised", 403: "unauthorised", 404: "missing", 408: "slow", 413: "too_large",
  415: "unsupported_type", 422: "unreadable", 429: "busy", 503: "overloaded",
};
const CODES = new Set(["too_large", "too_many", "unsupported_type", "unreadable", "unauthorised", "invalid"]);

/** What went wrong. `error.KIND` is its sentence in strings.js; `retry`: seconds to wait, where the server said. */
export class ServiceError extends Error {
  constructor(kind, status = 0, retry = null) {
    super(kind);
    this.kind = kind;
    this.status = status;
    this.retry = retry;
  }

  /** True when the same request may succeed a little later. */
  get passing() {
    return this.kind === "busy" || this.kind === "overloaded";
  }
}

/** The name of an error code of the service, or of a status when the code says nothing of it. */
export function kindOf(code, status) {
  return CODES.has(code) ? code : (KINDS[status] ?? "failed");
}

export function setKey(value) {
  key = value;
}

async function ask(path, options = {}) {
  const headers = new Headers({ Accept: "application/json" });
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  let body = null;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch (error) {
    throw new ServiceError(error.name === "TimeoutError" ? "slow" : "down");
  }
  try {
    body = await response.json();
  } catch {
    body = null; // a proxy's own page, or a connection that broke: no answer of ours
  }
  if (response.ok && body !== null) return body;
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const kind = response.ok ? "failed" : kindOf(body?.error?.code, response.status);
  throw new ServiceError(kind, response.status, Number.isFinite(wait) && wait > 0 ? wait : null);
}

/** What the server serves: model, attributes, limits. */
export const askModel = () => ask("/v1/model");

/** What the watch has counted. */
export const askEvents = (hours = 24, recent = 50) => ask(`/v1/events?hours=${hours}&recent=${recent}`);

/** Blobs with their names -> the answer of /v1/read, every face of every photo. */
export function readPhotos(photos) {
  const form = new FormData();
  for (const { blob, name } of photos) form.append("photos", blob, name);
  form.append("faces", "all");
  return ask("/v1/read", { method: "POST", body: form });
}
