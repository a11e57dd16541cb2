"""The same task for every proxy. Envoy and Tombolo read the very same file, but for the port numbers."""

import json

TYPES = "type.googleapis.com/envoy."
BACKEND, SOURCE = 9000, 9001
# Offsets of the listeners from a proxy's first port.
HTTP1, HTTP2, TLS, TCP, HTTP3, OUT, IN, SCALE = 1, 2, 3, 4, 5, 11, 12, 21


def address(port, protocol="TCP"):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port, "protocol": protocol}}


def manager(name, cluster, **more):
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": TYPES + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "route_config": {"virtual_hosts": [host("all", ["*"], cluster)]},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": TYPES + "extensions.filters.http.router.v3.Router"},
                }
            ],
            **more,
        },
    }


def host(name, domains, cluster):
    return {"name": name, "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}


def certificate(certs, name):
    return [{"certificate_chain": {"filename": f"{certs}/{name}.pem"}, "private_key": {"filename": f"{certs}/{name}.key"}}]


def tls(certs, name, peer=None, client=False, alpn=()):
    kind = "UpstreamTlsContext" if client else "DownstreamTlsContext"
    common = {"tls_certificates": certificate(certs, name)}
    if alpn:
        common["alpn_protocols"] = list(alpn)
    common["tls_params"] = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
    if peer:
        common["validation_context"] = {
            "trusted_ca": {"filename": f"{certs}/ca.pem"},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": f"spiffe://cluster.local/ns/default/sa/{peer}"}}
            ],
        }
    context = {"@type": TYPES + f"extensions.transport_sockets.tls.v3.{kind}", "common_tls_context": common}
    if peer and not client:
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def quic(certs):
    inner = tls(certs, "server")["typed_config"]
    inner.pop("@type")
    inner["common_tls_context"].pop("tls_params")
    kind = TYPES + "extensions.transport_sockets.quic.v3.QuicDownstreamTransport"
    return {"name": "envoy.transport_sockets.quic", "typed_config": {"@type": kind, "downstream_tls_context": inner}}


def listener(name, port, filters, socket=None, **more):
    chain = {"filters": filters}
    if socket:
        chain["transport_socket"] = socket
    return {"name": name, "address": address(port), "filter_chains": [chain], **more}


def cluster(name, port, http2=False, socket=None):
    bounds = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    endpoint = {"endpoint": {"address": address(port)}}
    made = {
        "name": name,
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [bounds]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if http2:
        kind = "extensions.upstreams.http.v3.HttpProtocolOptions"
        made["typed_extension_protocol_options"] = {
            "envoy." + kind: {"@type": TYPES + kind, "explicit_http_config": {"http2_protocol_options": {}}}
        }
    if socket:
        made["transport_socket"] = socket
    return made


def bootstrap(admin, listeners, clusters):
    return {"admin": {"address": address(admin)}, "static_resources": {"listeners": listeners, "clusters": clusters}}


def single(base, certs):
    """One proxy with a listener for each kind of traffic."""
    tcp = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": TYPES + "extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": "bulk",
        },
    }
    udp = {"udp_listener_config": {"quic_options": {}, "downstream_socket_config": {"prefer_gro": True}}}
    http3 = listener(
        "http3", base + HTTP3, [manager("http3", "one", codec_type="HTTP3", http3_protocol_options={})], quic(certs), **udp
    )
    http3["address"] = address(base + HTTP3, "UDP")
    listeners = [
        listener("http1", base + HTTP1, [manager("http1", "one")]),
        listener("http2", base + HTTP2, [manager("http2", "two", codec_type="HTTP2")]),
        listener("tls", base + TLS, [manager("tls", "one")], tls(certs, "server", alpn=("h2", "http/1.1"))),
        listener("tcp", base + TCP, [tcp]),
        http3,
    ]
    clusters = [cluster("one", BACKEND), cluster("two", BACKEND, http2=True), cluster("bulk", SOURCE)]
    return bootstrap(base + 99, listeners, clusters)


def outbound(base, certs):
    """The client's side of a pair of sidecars: plaintext HTTP/1.1 in, mutual TLS with HTTP/2 out."""
    peer = cluster("peer", base + IN, http2=True, socket=tls(certs, "a", peer="b", client=True, alpn=("h2",)))
    return bootstrap(base + 97, [listener("out", base + OUT, [manager("out", "peer")])], [peer])


def inbound(base, certs):
    """The server's side of a pair of sidecars."""
    socket = tls(certs, "b", peer="a", alpn=("h2",))
    return bootstrap(base + 98, [listener("in", base + IN, [manager("in", "one")], socket)], [cluster("one", BACKEND)])


def name_of(index):
    return f"svc-{index}.ns.svc.cluster.local"


def scale(base, count):
    """So many virtual hosts, each with a cluster of its own."""
    hosts = [
        host(f"{name_of(i)}:80", [name_of(i), f"{name_of(i)}:80", f"svc-{i}"], f"outbound|80||{name_of(i)}")
        for i in range(count)
    ]
    http = manager("scale", "")
    http["typed_config"]["route_config"] = {"virtual_hosts": hosts}
    clusters = [cluster(f"outbound|80||{name_of(i)}", BACKEND) for i in range(count)]
    return bootstrap(base + 96, [listener("scale", base + SCALE, [http])], clusters)


def write(path, made):
    with open(path, "w") as file:
        json.dump(made, file)
    return path


def nginx(base, folder, certs, module):
    """nginx: HTTP/1.1 to the backend whatever the client speaks (it has no HTTP/2 towards upstreams)."""
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""{f"load_module {module};" if module else ""}
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err error;
events {{ worker_connections 19000; multi_accept on; }}
http {{
  access_log off; keepalive_timeout 3600s; keepalive_requests 1000000000; {paths} tcp_nodelay on;
  upstream be {{ server 127.0.0.1:{BACKEND}; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 3600s; }}
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {{ listen 127.0.0.1:{base + HTTP1} backlog=4096; location / {{ proxy_pass http://be; }} }}
  server {{ listen 127.0.0.1:{base + HTTP2} http2 backlog=4096; location / {{ proxy_pass http://be; }} }}
  server {{ listen 127.0.0.1:{base + TLS} ssl http2 backlog=4096; ssl_protocols TLSv1.3;
    ssl_certificate {certs}/server.pem; ssl_certificate_key {certs}/server.key; location / {{ proxy_pass http://be; }} }}
}}
""" + (f"stream {{ server {{ listen 127.0.0.1:{base + TCP}; proxy_buffer_size 64k; proxy_pass 127.0.0.1:{SOURCE}; }} }}\n" if module else "")


def haproxy(base, certs):
    """HAProxy, with splice for bulk."""
    return f"""global
  nbthread 1
  maxconn 15000
  no strict-limits
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout client 1h
  timeout server 1h
  timeout connect 5s
  timeout http-keep-alive 1h
  http-reuse always
backend one
  server s 127.0.0.1:{BACKEND} pool-max-conn -1 pool-purge-delay 1h
backend two
  server s 127.0.0.1:{BACKEND} proto h2 pool-max-conn -1 pool-purge-delay 1h
frontend http1
  bind 127.0.0.1:{base + HTTP1} backlog 4096
  default_backend one
frontend http2
  bind 127.0.0.1:{base + HTTP2} proto h2 backlog 4096
  default_backend two
frontend tls
  bind 127.0.0.1:{base + TLS} ssl crt {certs}/server.both alpn h2,http/1.1 backlog 4096
  default_backend one
frontend tcp
  mode tcp
  bind 127.0.0.1:{base + TCP}
  option splice-auto
  option splice-response
  default_backend bulk
backend bulk
  mode tcp
  option splice-auto
  option splice-response
  server s 127.0.0.1:{SOURCE}
"""
