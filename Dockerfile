# Boxoffice with every engine compiled in: SQLite, PostgreSQL, Redis and Apache Kafka.
#
#   docker build -t boxoffice .
#   docker run --rm -p 8080:8080 -v boxoffice:/var/lib/boxoffice boxoffice      everything in one process, nothing beside it
#
# Services apart: deploy/compose.yaml. What the settings mean: `docker run --rm boxoffice config`.

FROM rust:1.90-bookworm AS build
# What librdkafka is compiled with (scripts/kafka packages). The image has most of it; what it has today is no promise.
RUN apt-get update \
    && apt-get install -y --no-install-recommends make g++ pkg-config libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package boxoffice --features kafka

FROM debian:bookworm-slim
# librdkafka's TLS and compression, and the authorities that Redis and Kafka are checked against where no file is named.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin boxoffice \
    && install -d -o boxoffice -g boxoffice /var/lib/boxoffice
COPY --from=build /source/target/release/boxoffice /usr/local/bin/boxoffice
# By number, so that Kubernetes sees that it is not root.
USER 10001:10001
ENV BOXOFFICE_DATA=/var/lib/boxoffice \
    BOXOFFICE_LISTEN=0.0.0.0:8080
VOLUME /var/lib/boxoffice
EXPOSE 8080
# It hears SIGTERM itself, and takes up to two minutes to finish what it accepted.
STOPSIGNAL SIGTERM
ENTRYPOINT ["boxoffice"]
CMD ["serve"]
