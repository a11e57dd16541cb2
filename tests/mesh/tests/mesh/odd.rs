//! Odd, wrong and extreme objects: what is in force of them is something that the gateway takes, and what is not spoils no other.

use crate::{sound, yaml};
use tombolo_tests_mesh::{From, Mesh, SiteSpec};

fn routes(http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: api}}\nspec:\n  hosts: [api]\n  http:\n  \
         - {http}\n"
    )
}

fn policy(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\nspec:\n  host: api\n  \
         trafficPolicy: {policy}\n"
    )
}

fn server(server: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: istio-system}}\nspec:\n  selector: \
         {{istio: ingressgateway}}\n  servers:\n  - port: {{number: 80, name: http, protocol: HTTP}}\n    hosts: [\"*\"]\n  - \
         {server}\n"
    )
}

/// The neighbours' requests and everything that the gateway is sent, with one more file.
fn check(text: &str) {
    let base = [
        yaml::app("web", &[("v1", 1)]),
        yaml::app("api", &[("v1", 1)]),
        yaml::app("next", &[("v1", 1)]),
        yaml::subsets("next"),
        yaml::split("next", 100, 0),
    ];
    let mut mesh = Mesh::of([SiteSpec::new("east", &base.concat()).file("odd.yaml", text)]).build();
    sound(&mesh);
    let next = mesh.get(From::Pod("east/web-v1-0"), "http://next:9080/");
    assert_eq!(next.pod(), "east/next-v1-0", "{text}\n{next:#?}");
}

#[test]
fn routes_spoil_no_others() {
    for odd in [
        "{match: [{uri: {regex: \"(\"}}], route: [{destination: {host: api}}]}",
        "{match: [{uri: {regex: \"(?!x)y\"}}], route: [{destination: {host: api}}]}",
        "{match: [{uri: {regex: \"(a)\\\\1\"}}], route: [{destination: {host: api}}]}",
        "{match: [{uri: {regex: \"(\\\\\\\\pL{1000}){1000}\"}}], route: [{destination: {host: api}}]}",
        "{match: [{headers: {x-a: {regex: \"[\"}}}], route: [{destination: {host: api}}]}",
        "{match: [{headers: {\"x a\": {exact: y}}}], route: [{destination: {host: api}}]}",
        "{headers: {request: {set: {\"x y\": z}}}, route: [{destination: {host: api}}]}",
        "{headers: {request: {set: {x-y: \"a\\nb\"}}}, route: [{destination: {host: api}}]}",
        "{headers: {request: {set: {x-y: \"%DOWNSTREAM_REMOTE_ADDRESS%\"}}}, route: [{destination: {host: api}}]}",
        "{headers: {request: {set: {Host: \"a.b\"}}}, route: [{destination: {host: api}}]}",
        "{headers: {request: {set: {\":path\": \"/a\"}}}, route: [{destination: {host: api}}]}",
        "{headers: {request: {remove: [\":path\", host]}}, route: [{destination: {host: api}}]}",
        "{rewrite: {uriRegexRewrite: {match: \"(\", rewrite: \"x\"}}, route: [{destination: {host: api}}]}",
        "{rewrite: {uri: \"\"}, route: [{destination: {host: api}}]}",
        "{retries: {attempts: 2, retryOn: \"nonsense,503,5xx\"}, route: [{destination: {host: api}}]}",
        "{retries: {attempts: 0}, route: [{destination: {host: api}}]}",
        "{fault: {abort: {httpStatus: 999, percentage: {value: 100}}}, route: [{destination: {host: api}}]}",
        "{fault: {abort: {httpStatus: 100, percentage: {value: 100}}}, route: [{destination: {host: api}}]}",
        "{fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0.001}}}, route: [{destination: {host: api}}]}",
        "{directResponse: {status: 600}}",
        "{directResponse: {status: 100}}",
        "{redirect: {uri: /x, redirectCode: 200}}",
        "{redirect: {uri: /x, redirectCode: 304}}",
        "{redirect: {derivePort: FROM_REQUEST_PORT, scheme: https}}",
        "{corsPolicy: {allowOrigins: [{regex: \"(\"}]}, route: [{destination: {host: api}}]}",
        "{route: [{destination: {host: api}, weight: 0}, {destination: {host: web}, weight: 0}]}",
        "{route: [{destination: {host: api}, weight: 4294967295}, {destination: {host: web}, weight: 4294967295}]}",
        "{timeout: 0s, route: [{destination: {host: api}}]}",
        "{timeout: 999999999h, route: [{destination: {host: api}}]}",
        "{match: [{queryParams: {q: {regex: \"(\"}}}], route: [{destination: {host: api}}]}",
        "{match: [{statPrefix: x, uri: {prefix: /}}], route: [{destination: {host: api}}]}",
        "{match: [{method: {regex: \"GET|POST\"}, scheme: {exact: http}, authority: {prefix: api}, ignoreUriCase: true, uri: {exact: /A}, withoutHeaders: {x: {}}, port: 9080, sourceLabels: {app: web}}], route: [{destination: {host: api}}]}",
        "{mirrors: [{destination: {host: web}, percentage: {value: 50}}, {destination: {host: nowhere}}], route: [{destination: {host: api}}]}",
    ] {
        check(&routes(odd));
    }
}

#[test]
fn policies_spoil_no_others() {
    for odd in [
        "{loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s, path: /x}}}}",
        "{loadBalancer: {consistentHash: {httpQueryParameterName: q, ringHash: {minimumRingSize: 99999999}}}}",
        "{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 10}}}",
        "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 4}}}}",
        "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 0}}}}",
        "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 99999989}}}}",
        "{loadBalancer: {simple: PASSTHROUGH}}",
        "{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 10s, aggression: 0.5, minimumPercent: 0}}}",
        "{outlierDetection: {consecutiveGatewayErrors: 0, consecutive5xxErrors: 0, interval: 0.5s, maxEjectionPercent: 0, minHealthPercent: 100, splitExternalLocalOriginErrors: true}}",
        "{connectionPool: {tcp: {maxConnections: 0, connectTimeout: 0.001s, maxConnectionDuration: 1s, idleTimeout: 0s}, http: {http1MaxPendingRequests: 0, maxConcurrentStreams: 1, useClientProtocol: true, idleTimeout: 0s}}}",
        "{tls: {mode: SIMPLE, insecureSkipVerify: true}}",
        "{proxyProtocol: {version: V2}}",
        "{tunnel: {protocol: CONNECT, targetHost: x.y, targetPort: 443}}",
        "{loadBalancer: {localityLbSetting: {enabled: true, failoverPriority: [topology.istio.io/network, topology.kubernetes.io/region]}}, outlierDetection: {}}",
        "{retryBudget: {percent: 20, minRetryConcurrency: 3}}",
    ] {
        check(&policy(odd));
    }
}

#[test]
fn servers_spoil_no_others() {
    for odd in [
        "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b], tls: {mode: MUTUAL, credentialName: nope}}",
        "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b], tls: {mode: ISTIO_MUTUAL}}",
        "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b], tls: {mode: ISTIO_MUTUAL, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, AES128-SHA], minProtocolVersion: TLSV1_0}}",
        "{port: {number: 8080, name: http2, protocol: HTTP2}, bind: 127.0.0.5, hosts: [a.b]}",
        "{port: {number: 0, name: http2, protocol: HTTP}, bind: \"unix:///tmp/x\", hosts: [a.b]}",
        "{port: {number: 27017, name: mongo, protocol: MONGO}, hosts: [\"*\"]}",
        "{port: {number: 80, name: tcp, protocol: TCP}, hosts: [\"*\"]}",
        "{port: {number: 10080, name: h, protocol: HTTP}, hosts: [\"*\"]}",
    ] {
        check(&server(odd));
    }
}

#[test]
fn outside_services_and_settings_spoil_no_others() {
    for odd in [
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [e.x], ports: [{number: 53, name: dns, protocol: UDP}, {number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 1.2.3.4, weight: 5, locality: eu/z}, {address: \"::1\"}, {address: \"unix:///tmp/s\", ports: {http: 1}}]}\n",
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [\"*.x\"], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n",
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [e.x], addresses: [240.0.0.1, 10.0.0.0/24], ports: [{number: 80, name: grpc, protocol: GRPC}, {number: 443, name: tls, protocol: TLS}, {number: 444, name: https, protocol: HTTPS}, {number: 1, name: tcp, protocol: TCP}], resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.b}, {address: c.d}]}\n",
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: al}\nspec: {type: ExternalName, externalName: api.default.svc.cluster.local, ports: [{port: 80, name: http}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: al2}\nspec: {type: ExternalName, externalName: 1.2.3.4, ports: [{port: 80, name: http}]}\n",
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /var/log/x.log\n    accessLogEncoding: JSON\n    accessLogFormat: '{\"a\": \"%START_TIME%\", \"b\": {\"c\": \"%BYTES_SENT%\"}, \"d\": [\"%PROTOCOL%\"]}'\n",
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /dev/stdout\n    accessLogEncoding: JSON\n    accessLogFormat: '{\"a'\n",
    ] {
        check(odd);
    }
}

fn mesh_settings(lines: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n{lines}"
    )
}

#[test]
fn routes_that_the_gateway_refuses_are_refused_when_they_are_read() {
    for odd in [
        "{headers: {request: {set: {x-y: \"100%\"}}}, route: [{destination: {host: api}}]}",
        "{headers: {request: {set: {x-y: \"%NO_SUCH%\"}}}, route: [{destination: {host: api}}]}",
        "{rewrite: {uriRegexRewrite: {match: \"a\", rewrite: \"\\\\3\"}}, route: [{destination: {host: api}}]}",
    ] {
        check(&routes(odd));
    }
    check(&routes(&format!("{{directResponse: {{status: 200, body: {{string: \"{}\"}}}}}}", "x".repeat(10_000))));
}

#[test]
fn a_log_format_spoils_no_listener() {
    check(&mesh_settings("    accessLogFile: /dev/stdout\n    accessLogFormat: \"%NO% 100%\\n\"\n"));
}

#[test]
fn certificates_in_files_spoil_no_others() {
    check(&policy(
        "{tls: {mode: MUTUAL, clientCertificate: /etc/c.pem, privateKey: /etc/k.pem, caCertificates: /etc/ca.pem}}",
    ));
    check(&server(
        "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b], tls: {mode: SIMPLE, serverCertificate: /etc/c.pem, \
         privateKey: /etc/k.pem}}",
    ));
}
