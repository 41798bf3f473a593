# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY benches ./benches
# Only the binary is built; benches are copied because Cargo.toml names them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin cutover && cp target/dist/cutover /cutover

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/cutover --create-home --shell /usr/sbin/nologin cutover \
    && install -d -o cutover -g cutover -m 0750 /run/cutover /etc/cutover
COPY --from=build /cutover /usr/local/bin/cutover
USER cutover
ENV STATE_DIRECTORY=/var/lib/cutover
# The journal: lose it and the next start no longer knows which color is active.
VOLUME /var/lib/cutover
EXPOSE 8080
# SIGTERM finishes running requests within server.shutdown_grace (30s); give `docker stop` a longer --time.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["cutover", "health"]
ENTRYPOINT ["cutover"]
CMD ["run", "-c", "/etc/cutover/cutover.toml"]
