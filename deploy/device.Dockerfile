# A device: answers lines of JSON, asks the cloud where that pays. No torch; some 230 MB.
#
#   docker build -f deploy/device.Dockerfile -t duetto-device .
#   docker run -i -v duetto-device:/var/lib/duetto duetto-device device --cloud cloud.example:8443 < inputs.jsonl

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY duetto duetto
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/duetto \
    && /opt/duetto/bin/pip install -c constraints.txt '.[device]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/duetto /opt/duetto
RUN useradd --uid 10001 --create-home duetto && install -d -o duetto /var/lib/duetto
ENV PATH=/opt/duetto/bin:$PATH PYTHONUNBUFFERED=1 DUETTO_DEVICE=/var/lib/duetto/device
USER 10001
WORKDIR /var/lib/duetto
VOLUME /var/lib/duetto
ENTRYPOINT ["duetto"]
CMD ["device", "--cloud", "cloud:8443"]
