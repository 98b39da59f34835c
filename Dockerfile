# Two stages to build: `docker build --target cpu .` and `docker build --target cuda .`
# They hold what the tests install: a browser for the pages' tests, OpenGL without a screen for rendered scenes, ffmpeg,
# PostgreSQL for the votes of studies.
FROM python:3.11-slim-bookworm AS cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      make git gcc ffmpeg chromium fonts-dejavu-core libegl1 libgl1-mesa-dri postgresql \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /editverse
COPY requirements.lock requirements-models.lock requirements-uv.lock pyproject.toml Makefile README.md LICENSE ./
COPY shards shards
COPY curation curation
COPY model model
COPY benchmark benchmark
COPY editverse editverse
COPY configs configs
RUN make setup
ENV PATH=/editverse/.venv/bin:$PATH
ENTRYPOINT ["editverse"]
CMD ["--help"]

# The locked PyTorch is built for CUDA already: what it needs beside the wheel is the driver, which the runtime mounts.
FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
