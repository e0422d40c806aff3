# syntax=docker/dockerfile:1
# Octet's image: about 100 MB, no shell, no package manager, not root.
#
#   docker build -t octet .
#   docker run --rm -p 8000:8000 -p 8001:8001 -v "$PWD/models:/models:ro" octet
#
# The libraries are Debian 13's own; of each only what the binary loads is kept (deploy/docker/assemble.sh), because
# oneDNN and gRPC on top of a whole base system would be more than 150 MB.

FROM debian:trixie-slim AS builder
WORKDIR /src
COPY deploy/toolbox/packages deploy/toolbox/packages
RUN apt-get update \
    && sed -e 's/#.*//' deploy/toolbox/packages/build deploy/toolbox/packages/image \
       | xargs apt-get install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cmake --preset release -D OCTET_TESTS=OFF \
    && cmake --build --preset release --target octet \
    && deploy/docker/assemble.sh build/release/octet /image

FROM scratch
COPY --from=builder /image/ /
ENV LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
# 8000: HTTP (REST, health, dashboard). 8001: gRPC. 8002: Prometheus.
EXPOSE 8000 8001 8002
VOLUME ["/models"]
# SIGTERM drains. Probes come from outside, there is no shell in here: GET /v2/health/live and /v2/health/ready on port
# 8000, or grpc.health.v1.Health on 8001, both of which Kubernetes and load balancers speak.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/octet"]
CMD ["serve", "--repository", "/models"]
