# The image of cutover: `docker build -t cutover .`
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# Only the binary is built; benches are copied because Cargo.toml names them.
COPY benches ./benches
# `--build-arg FEATURES=docker`: endpoints that follow containers (docs/containers.md).
ARG FEATURES=""
# For the most of a processor, build with `just dist` and copy target/pgo/cutover instead: its training needs more than this image has.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin cutover --features "$FEATURES" && cp target/dist/cutover /cutover

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="cutover" \
      org.opencontainers.image.description="A reverse proxy that does the blue/green traffic switch itself" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
RUN groupadd --gid 10001 cutover \
    && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /var/lib/cutover --create-home --shell /usr/sbin/nologin cutover \
    && install -d -o cutover -g cutover -m 0750 /var/lib/cutover /run/cutover /etc/cutover
# The authorities that `https://` endpoints are verified with; the slim image has none.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /cutover /usr/local/bin/cutover
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
ENV STATE_DIRECTORY=/var/lib/cutover
# The journal: lose it and the next start no longer knows which color is active.
VOLUME /var/lib/cutover
EXPOSE 8080
# SIGTERM finishes running requests within server.shutdown_grace (30s); give `docker stop` a longer --time.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["cutover", "health"]
ENTRYPOINT ["cutover"]
CMD ["run", "-c", "/etc/cutover/cutover.toml"]
