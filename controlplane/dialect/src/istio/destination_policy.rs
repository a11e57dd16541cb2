//! Owns a traffic policy: of a host, of a subset, of a port.

use crate::{
    code,
    fields::{At, Fields},
};
use std::collections::BTreeMap;
use tombolo_controlplane_core::intent::{
    Algorithm, ClientTls, ClientTlsMode, ConnectionPool, HashKey, HashTable, LoadBalancer, LocalityPolicy,
    OutlierDetection, RetryBudget, TrafficPolicy, Warmup,
};

const DEFAULT_RING: u64 = 1024;
const DEFAULT_MAGLEV: u64 = 65_537;
const MAX_MAGLEV: i64 = 5_000_011;

pub(crate) fn read(at: &At<'_>) -> TrafficPolicy {
    let fields = at.fields();
    let mut policy = policy(&fields);
    for at in fields.list("portLevelSettings") {
        let fields = at.fields();
        let of_port = self::policy(&fields);
        let Some(number) = fields.need("port").and_then(|at| at.fields().need("number")?.port()) else { continue };
        if policy.ports.insert(number, of_port).is_some() {
            at.error(code::BAD_VALUE, format!("port {number} stands twice; remove one"));
        }
    }
    policy
}

fn policy(fields: &Fields<'_>) -> TrafficPolicy {
    fields.not_in_force(&["tunnel"]);
    TrafficPolicy {
        load_balancer: fields.at("loadBalancer").map(|at| load_balancer(&at)),
        connection_pool: fields.at("connectionPool").map(|at| connection_pool(&at)),
        outlier: outlier(fields),
        tls: fields.at("tls").and_then(|at| client_tls(&at)),
        ports: BTreeMap::new(),
        proxy_protocol: fields.at("proxyProtocol").and_then(|at| {
            let version = at.fields().at("version");
            version.map_or(Some(1), |at| at.choose(&[("V1", 1), ("V2", 2)]))
        }),
        retry_budget: fields.at("retryBudget").map(|at| retry_budget(&at)),
    }
}

fn load_balancer(at: &At<'_>) -> LoadBalancer {
    let fields = at.fields();
    let simple = [
        ("UNSPECIFIED", None),
        ("ROUND_ROBIN", Some(Algorithm::RoundRobin)),
        ("LEAST_REQUEST", Some(Algorithm::LeastRequest)),
        // The old name of the same algorithm.
        ("LEAST_CONN", Some(Algorithm::LeastRequest)),
        ("RANDOM", Some(Algorithm::Random)),
        ("PASSTHROUGH", Some(Algorithm::Passthrough)),
    ];
    let simple = fields.at("simple").and_then(|at| at.choose(&simple)).flatten();
    let hash = fields.at("consistentHash").and_then(|at| consistent_hash(&at));
    if simple.is_some() && hash.is_some() {
        at.error(code::CONFLICTING_FIELDS, "simple and consistentHash exclude each other; keep one");
    }
    fields.not_in_force(&["zoneAwareLbSetting"]);
    LoadBalancer {
        algorithm: hash.or(simple),
        locality: fields.at("localityLbSetting").map(|at| locality(&at)),
        warmup: warmup(&fields),
    }
}

fn warmup(fields: &Fields<'_>) -> Option<Warmup> {
    let legacy = fields.at("warmupDurationSecs");
    if let Some(at) = fields.at("warmup") {
        let fields = at.fields();
        return Some(Warmup {
            min_percent: fields.at("minimumPercent").and_then(|at| at.float(0.0..=100.0)).unwrap_or(10.0),
            aggression: fields.at("aggression").and_then(|at| at.float(1.0..=f64::MAX)).unwrap_or(1.0),
            duration: fields.need("duration")?.positive_duration()?,
        });
    }
    let legacy = legacy?;
    legacy.warn(code::LEGACY_FIELD, "it is a field of old versions, honoured here; write warmup: {duration: …}");
    Some(Warmup { duration: legacy.positive_duration()?, min_percent: 10.0, aggression: 1.0 })
}

fn consistent_hash(at: &At<'_>) -> Option<Algorithm> {
    let fields = at.fields();
    let mut keys = Vec::new();
    keys.extend(fields.string("httpHeaderName").map(HashKey::Header));
    keys.extend(fields.string("httpQueryParameterName").map(HashKey::Query));
    keys.extend(fields.bool("useSourceIp").filter(|on| *on).map(|_| HashKey::SourceIp));
    keys.extend(fields.at("httpCookie").and_then(|at| cookie(&at)));
    let table = hash_table(&fields);
    if keys.len() != 1 {
        at.error(
            code::BAD_VALUE,
            "write exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName",
        );
    }
    Some(Algorithm::ConsistentHash { key: keys.pop()?, table })
}

fn cookie(at: &At<'_>) -> Option<HashKey> {
    let fields = at.fields();
    let attributes = fields.list("attributes").iter().filter_map(cookie_attribute).collect();
    let path = fields.string("path").unwrap_or_default();
    let ttl = fields.duration("ttl");
    Some(HashKey::Cookie { name: fields.need("name")?.string()?, path, ttl, attributes })
}

/// One attribute of a cookie. What would end it, or begin another, is refused: proxies write it as it stands.
fn cookie_attribute(at: &At<'_>) -> Option<(String, String)> {
    let fields = at.fields();
    let value = fields.string("value").unwrap_or_default();
    let name = fields.need("name")?.string()?;
    if !super::is_header_name(&name) || !value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b';') {
        at.error(
            code::BAD_VALUE,
            "an attribute of a cookie is a word, its value has no semicolon; for example {name: SameSite, value: Lax}",
        );
        return None;
    }
    Some((name, value))
}

fn hash_table(fields: &Fields<'_>) -> HashTable {
    let size = |name, range| fields.at(name).and_then(|at| at.int::<u64>(range));
    let legacy = size("minimumRingSize", 1..=8_388_608);
    let ring =
        fields.fields("ringHash").map(|ring| ring.at("minimumRingSize").and_then(|at| at.int::<u64>(1..=8_388_608)));
    let maglev = fields.fields("maglev").map(|maglev| {
        let at = maglev.at("tableSize")?;
        let size = at.int::<u64>(2..=MAX_MAGLEV)?;
        if !is_prime(size) {
            at.error(
                code::BAD_VALUE,
                format!("{size} is not prime, which this table needs; write for example {DEFAULT_MAGLEV}"),
            );
        }
        Some(size)
    });
    match maglev {
        Some(size) => HashTable::Maglev(size.unwrap_or(DEFAULT_MAGLEV)),
        None => HashTable::Ring(ring.flatten().or(legacy).unwrap_or(DEFAULT_RING)),
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

/// Preference for places, of a rule or of the mesh.
pub(crate) fn locality(at: &At<'_>) -> LocalityPolicy {
    let fields = at.fields();
    let distribute: Vec<_> = fields.list("distribute").iter().filter_map(shares).collect();
    let failover: Vec<_> = fields.list("failover").iter().filter_map(pair).collect();
    let failover_priority = fields.strings("failoverPriority");
    let takes_over = !failover.is_empty() || !failover_priority.is_empty();
    if takes_over && !distribute.is_empty() {
        at.error(code::CONFLICTING_FIELDS, "distribute and failover exclude each other; keep one");
    }
    LocalityPolicy { enabled: fields.bool("enabled"), distribute, failover, failover_priority }
}

fn shares(at: &At<'_>) -> Option<(String, BTreeMap<String, u32>)> {
    let fields = at.fields();
    let mut to = BTreeMap::new();
    for (place, at) in fields.need("to").map(|at| at.entries()).unwrap_or_default() {
        to.extend(at.int::<u32>(0..=100).map(|share| (place.to_owned(), share)));
    }
    let sum: u32 = to.values().sum();
    if sum != 100 {
        at.error(code::BAD_VALUE, format!("the shares add up to {sum}; they must add up to 100"));
    }
    Some((fields.need("from")?.string()?, to))
}

fn pair(at: &At<'_>) -> Option<(String, String)> {
    let fields = at.fields();
    let (from, to) = (fields.need("from").and_then(|at| at.string()), fields.need("to").and_then(|at| at.string()));
    let (from, to) = (from?, to?);
    if from == to {
        at.error(code::BAD_VALUE, "a region cannot take over from itself");
    }
    Some((from, to))
}

fn connection_pool(at: &At<'_>) -> ConnectionPool {
    let fields = at.fields();
    let mut pool = ConnectionPool::default();
    if let Some(tcp) = fields.fields("tcp") {
        pool.max_connections = tcp.u32("maxConnections");
        pool.connect_timeout = tcp.at("connectTimeout").and_then(|at| at.positive_duration());
        pool.max_connection_duration = tcp.duration("maxConnectionDuration");
        pool.tcp_idle_timeout = tcp.duration("idleTimeout");
        pool.tcp_keepalive =
            tcp.fields("tcpKeepalive").map(|k| (k.u32("probes"), k.duration("time"), k.duration("interval")));
    }
    if let Some(http) = fields.fields("http") {
        http.not_in_force(&["http2KeepAlive", "http2Keepalive"]);
        pool.max_pending_requests = http.u32("http1MaxPendingRequests");
        pool.max_requests = http.u32("http2MaxRequests");
        pool.max_requests_per_connection = http.u32("maxRequestsPerConnection");
        pool.max_retries = http.u32("maxRetries");
        pool.http_idle_timeout = http.duration("idleTimeout");
        let upgrade = [("DEFAULT", None), ("DO_NOT_UPGRADE", Some(false)), ("UPGRADE", Some(true))];
        pool.h2_upgrade = http.at("h2UpgradePolicy").and_then(|at| at.choose(&upgrade)).flatten();
        pool.use_client_protocol = http.bool("useClientProtocol").unwrap_or(false);
        pool.max_concurrent_streams = http.u32("maxConcurrentStreams");
        if pool.use_client_protocol && pool.h2_upgrade == Some(true) {
            http.at.error(
                code::CONFLICTING_FIELDS,
                "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other; keep one",
            );
        }
    }
    pool
}

/// A message that is there but empty switches detection on with its defaults.
fn outlier(policy: &Fields<'_>) -> Option<OutlierDetection> {
    let at = policy.at("outlierDetection")?;
    let fields = at.fields();
    fields.not_in_force(&["outlierDetectionHttpErrorCodes"]);
    let percent = |name| fields.at(name).and_then(|at| at.int::<u32>(0..=100));
    Some(OutlierDetection {
        consecutive_5xx: fields.u32("consecutive5xxErrors"),
        consecutive_gateway_errors: gateway_errors(&fields),
        split_local_origin: fields.bool("splitExternalLocalOriginErrors").unwrap_or(false),
        consecutive_local_origin: fields.u32("consecutiveLocalOriginFailures"),
        interval: fields.at("interval").and_then(|at| at.positive_duration()),
        base_ejection_time: fields.at("baseEjectionTime").and_then(|at| at.positive_duration()),
        max_ejection_percent: percent("maxEjectionPercent"),
        min_health_percent: percent("minHealthPercent"),
    })
}

/// The old `consecutiveErrors` counted 502, 503, 504 and failed connections, which is what gateway errors are now.
fn gateway_errors(fields: &Fields<'_>) -> Option<u32> {
    let modern = fields.u32("consecutiveGatewayErrors");
    let Some(legacy) = fields.at("consecutiveErrors") else { return modern };
    let errors = legacy.u32();
    legacy.warn(
        code::LEGACY_FIELD,
        match modern {
            Some(_) => "consecutiveGatewayErrors is written too and wins; remove consecutiveErrors".to_owned(),
            None => format!(
                "it is a field of old versions, honoured here with its old meaning; write consecutiveGatewayErrors: {}",
                errors.unwrap_or_default()
            ),
        },
    );
    modern.or(errors)
}

fn client_tls(at: &At<'_>) -> Option<ClientTls> {
    let fields = at.fields();
    fields.not_enforced(&["caCrl"]);
    let text = |name| fields.string(name).filter(|text| !text.is_empty());
    let modes = [
        ("DISABLE", ClientTlsMode::Disable),
        ("SIMPLE", ClientTlsMode::Simple),
        ("MUTUAL", ClientTlsMode::Mutual),
        ("ISTIO_MUTUAL", ClientTlsMode::Mesh),
    ];
    let tls = ClientTls {
        mode: fields.at("mode").map_or(Some(ClientTlsMode::Disable), |at| at.choose(&modes))?,
        credential: text("credentialName"),
        certificate: text("clientCertificate"),
        key: text("privateKey"),
        roots: text("caCertificates"),
        subject_alt_names: fields.strings("subjectAltNames"),
        sni: text("sni"),
        insecure: fields.bool("insecureSkipVerify").unwrap_or(false),
    };
    let files = tls.certificate.is_some() || tls.key.is_some();
    match tls.mode {
        ClientTlsMode::Mutual if tls.credential.is_none() && (tls.certificate.is_none() || tls.key.is_none()) => {
            at.error(code::REQUIRED, "MUTUAL needs credentialName, or clientCertificate and privateKey");
        }
        ClientTlsMode::Mesh if tls.credential.is_some() || files || tls.roots.is_some() => {
            at.error(
                code::CONFLICTING_FIELDS,
                "ISTIO_MUTUAL uses the mesh's certificates; remove the others, or write MUTUAL",
            );
        }
        _ if tls.credential.is_some() && (files || tls.roots.is_some()) => {
            at.error(code::CONFLICTING_FIELDS, "credentialName and certificate files exclude each other; keep one");
        }
        _ => {}
    }
    Some(tls)
}

fn retry_budget(at: &At<'_>) -> RetryBudget {
    let fields = at.fields();
    fields.not_in_force(&["interval"]);
    let percent = fields.at("percent").and_then(|at| match at.node.text() {
        Some(_) => at.float(0.0..=100.0),
        None => at.fields().at("value").and_then(|at| at.float(0.0..=100.0)),
    });
    RetryBudget { percent: percent.unwrap_or(20.0), min_concurrency: fields.u32("minRetryConcurrency").unwrap_or(3) }
}
