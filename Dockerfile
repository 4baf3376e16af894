# The image runs `steward up` against the PostgreSQL that STEWARD_DATABASE_URL names; it holds no Python, so the
# embedded one is not fetched here. docker-compose.yml brings one.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# Dependencies first, around an empty crate: this layer is built again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin steward \
    && rm -r src

COPY . .
# cargo goes by time stamps, and the real files may be older than the empty ones.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin steward

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*

# A fixed number, so that volumes and host folders can be given to it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /workspace --shell /usr/sbin/nologin steward \
    && install --directory --owner=10001 --group=10001 /workspace
COPY --from=build /build/target/release/steward /usr/local/bin/steward

USER 10001:10001
WORKDIR /workspace
VOLUME /workspace
EXPOSE 7007
STOPSIGNAL SIGTERM

# bash speaks enough HTTP; every tool more would be one more to keep patched.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7007 && printf 'GET /readyz HTTP/1.1\\r\\nHost: 127.0.0.1:7007\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 4 status <&3 && [[ $status == *' 200 '* ]]"]

ENTRYPOINT ["steward"]
CMD ["up", "--workspace", "/workspace", "--listen", "0.0.0.0:7007"]
