//! A stock Envoy takes the place of our gateway and of our sidecar under our control plane: the same calls work, and it
//! refuses nothing.

use anyhow::Result;
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tombolo_tests_e2e::{
    envoy_proxy::{Envoy, Stand},
    federation::Federation,
    http,
};
use tombolo_tests_kit::peers;

const TOMBOLO: &str = env!("CARGO_BIN_EXE_tombolo-e2e");

/// A pod whose sidecar is Envoy: the same application as the storefront's, at another address. The federation of this test uses
/// 127.41.0.0/16 for `east`, so that it can stand beside one that a user runs.
const POD: &str = r"
apiVersion: v1
kind: Pod
metadata:
  name: storefront-envoy
  namespace: default
  labels: {app: storefront, version: envoy, security.istio.io/tlsMode: istio}
spec:
  serviceAccountName: storefront
  containers:
  - name: storefront
    ports: [{name: http, containerPort: 8080}]
status:
  podIP: 127.41.77.1
  conditions: [{type: Ready, status: 'True'}]
";

async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so().await {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Refusals that the control plane of `east` counted for nodes of this name.
async fn nacks(federation: &Federation, name: &str) -> Result<(u64, String)> {
    let site = federation.site("east")?;
    let admin = site.pointer("/control_plane/admin").and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let status = http::get(&admin, "/status", &[]).await?.json();
    let proxies = status.pointer("/site/proxies").and_then(|v| v.as_array()).cloned().unwrap_or_default();
    let proxy = proxies.iter().find(|p| p["id"].as_str().is_some_and(|id| id.contains(name)));
    let proxy = proxy.unwrap_or_else(|| panic!("{name} is not among the proxies: {proxies:?}"));
    assert_eq!(proxy["connected"], true, "{proxy}");
    assert!(proxy["sent"].as_u64().unwrap_or_default() > 0, "{proxy}");
    Ok((proxy["nacked"].as_u64().unwrap_or(u64::MAX), proxy["rejected"].as_str().unwrap_or_default().to_owned()))
}

async fn ready(admin: &str) -> bool {
    http::get(admin, "/ready", &[]).await.is_ok_and(|answer| answer.status == 200)
}

async fn as_ingress(federation: &Federation, mode: &str, ip: &str) -> Result<()> {
    let name = format!("envoy-ingress-{mode}");
    let stand = Stand {
        role: "router",
        name: &name,
        like: "istio-system.istio-ingressgateway-0",
        ip,
        mode,
        metadata: json!({"TOMBOLO_BIND": ip, "INSTANCE_IPS": ip}),
    };
    let mut envoy = Envoy::start(federation, &stand)?;
    let (admin, address) = (envoy.admin.clone(), format!("{ip}:10080"));
    until("Envoy is ready as ingress", || ready(&admin)).await;
    until("the ingress answers", || async { http::get(&address, "/", &[]).await.is_ok_and(|a| a.status == 200) }).await;
    let answer = http::get(&address, "/", &[("host", "shop.example.com")]).await?;
    assert!(answer.field("/workload").starts_with("storefront"), "{answer:?}");
    assert!(answer.field("/peer").contains("/sa/istio-ingressgateway"), "mutual TLS from Envoy: {answer:?}");
    assert_eq!(http::get(&address, "/teapot", &[]).await?.status, 418, "fault");
    let moved = http::get(&address, "/old-shop", &[]).await?;
    assert_eq!(moved.status, 301, "redirect");
    let item = http::get(&address, "/items/12", &[]).await?;
    assert_eq!((item.status, item.field("/path").as_str()), (200, "/item"), "rewrite: {item:?}");
    assert_eq!(http::get(&address, "/impatient?delay=1500ms", &[]).await?.status, 504, "timeout");
    let far = http::get(&address, "/", &[("end-user", "tester")]).await?;
    assert_eq!(far.field("/site"), "west", "a subset in another site, through its east-west gateway: {far:?}");
    let (count, reason) = nacks(federation, &name).await?;
    assert_eq!(count, 0, "Envoy refused: {reason}\n{}", envoy.log("envoy.log"));
    envoy.wait("nothing", || true)
}

async fn as_sidecar(federation: &Federation, mode: &str) -> Result<()> {
    let name = format!("storefront-envoy-{mode}");
    let storefront = federation.workload("east", "storefront")?;
    let app = storefront.pointer("/app_ports/8080").and_then(|v| v.as_str()).unwrap_or_default();
    let like = format!("default.{}", storefront["name"].as_str().unwrap_or_default());
    let ip = "127.41.77.1";
    let stand = Stand {
        role: "sidecar",
        name: &name,
        like: &like,
        ip,
        mode,
        metadata: json!({
            "INSTANCE_IPS": ip,
            "TOMBOLO_HTTP_PROXY": format!("{ip}:15080"),
            "TOMBOLO_INBOUND": {"8080": format!("{ip}:8080,{app}")},
        }),
    };
    let envoy = Envoy::start(federation, &stand)?;
    let (admin, proxy) = (envoy.admin.clone(), format!("{ip}:15080"));
    until("Envoy is ready as sidecar", || ready(&admin)).await;
    let reviews = "http://reviews:9080/";
    until("a call through Envoy", || async { http::get(&proxy, reviews, &[]).await.is_ok_and(|a| a.status == 200) })
        .await;
    let mut seen = BTreeMap::new();
    for _ in 0..200 {
        let answer = http::get(&proxy, reviews, &[]).await?;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.field("/peer"), "spiffe://east.local/ns/default/sa/storefront");
        *seen.entry((answer.field("/site"), answer.field("/labels/version"))).or_insert(0u32) += 1;
    }
    let far = seen.get(&("west".to_owned(), "v2".to_owned())).copied().unwrap_or_default();
    assert!((15..=70).contains(&far), "a fifth of 200 calls goes to v2 in west: {seen:?}");
    let legacy = http::get(&proxy, "http://inventory.vm.internal:7070/", &[]).await?;
    assert_eq!((legacy.status, legacy.field("/site").as_str()), (200, "vm"), "{legacy:?}");
    inbound(federation).await?;
    let (count, reason) = nacks(federation, &name).await?;
    assert_eq!(count, 0, "Envoy refused: {reason}\n{}", envoy.log("envoy.log"));
    Ok(())
}

/// Calls of our own proxies reach the application through Envoy's inbound listener, over mutual TLS.
async fn inbound(federation: &Federation) -> Result<()> {
    let catalog = federation.workload("east", "catalog")?;
    let caller = catalog.pointer("/sidecar/http_proxy").and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let folder = federation.site("east")?["runtime"].as_str().unwrap_or_default().to_owned();
    let pod = std::path::Path::new(&folder).join("storefront-envoy.yaml");
    // The only endpoint of a service of its own, so that the call cannot go elsewhere.
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: behind-envoy, namespace: default}\n\
                   spec:\n  selector: {app: storefront, version: envoy}\n  ports: [{name: http, port: 8080}]\n---";
    std::fs::write(&pod, format!("{service}{POD}"))?;
    let url = "http://behind-envoy:8080/";
    until("a call to the pod behind Envoy", || async {
        http::get(&caller, url, &[]).await.is_ok_and(|a| a.status == 200)
    })
    .await;
    let answer = http::get(&caller, url, &[]).await?;
    assert_eq!(answer.field("/peer"), "spiffe://east.local/ns/default/sa/catalog", "{answer:?}");
    std::fs::remove_file(&pod)?;
    Ok(())
}

#[tokio::test]
async fn a_stock_envoy_serves_as_ingress_and_as_sidecar() -> Result<()> {
    if peers::left_out() {
        eprintln!("left out, because {} is set", peers::WITHOUT_PEERS);
        return Ok(());
    }
    peers::envoy()?;
    let federation = Federation::start(TOMBOLO, &["--loopback-base", "40"])?;
    for (mode, ip) in [("delta", "127.41.77.11"), ("sotw", "127.41.77.12")] {
        as_ingress(&federation, mode, ip).await?;
        as_sidecar(&federation, mode).await?;
    }
    Ok(())
}
