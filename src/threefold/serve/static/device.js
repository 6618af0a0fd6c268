// The camera itself: opening it, the list of cameras, and a sentence for each way in which it fails.

const FAULTS = {
  NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "missing", OverconstrainedError: "missing",
  NotReadableError: "used", AbortError: "used",
};
const LONGEST = 640; // pixels of the longer side that are sent
const QUALITY = 0.85;

/** What went wrong with the camera: `camera.KIND` is its sentence. */
export class CameraError extends Error {
  constructor(kind) {
    super(kind);
    this.kind = kind;
  }
}

/** A stream of the camera with this id, "" for the browser's choice; raises CameraError. */
export async function openCamera(id) {
  if (!window.isSecureContext || !navigator.mediaDevices) throw new CameraError("insecure");
  const video = { width: { ideal: 1280 }, height: { ideal: 720 } };
  if (id) video.deviceId = { exact: id };
  else video.facingMode = "user";
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    throw new CameraError(FAULTS[error.name] ?? "failed");
  }
}

/** The cameras of this device; names are there once one was allowed. */
export async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "videoinput");
}

/** Id and direction of a stream's camera: one that does not say where it looks is taken to look at its user. */
export function describe(stream) {
  const [track] = stream.getVideoTracks();
  const { deviceId, facingMode } = track.getSettings();
  const front = facingMode !== "environment" && !/\b(back|rear)\b|후면/i.test(track.label);
  return { track, id: deviceId ?? "", front };
}

/** The picture of the moment as JPEG, at most 640 pixels on its longer side: {blob, width, height}. */
export async function grab(video, canvas) {
  const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return { blob, width: canvas.width, height: canvas.height };
}
