"""OpenTelemetry: spans and metrics of requests and of attempts at upstreams, sent by OTLP over HTTP.

`telemetry` is the way in, `trace` one request, `histograms` the metrics, `otlp` their JSON, `exporter` the thread
that sends them.
"""
