//! Nothing that is secret is anywhere where others can read it: logs, files, pages, command lines.
//!
//! A small federation is given keys and passwords that are known here, traffic with credentials goes through it, and then
//! everything that it shows is searched for them, and for anything that looks like a private key or a token.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tombolo_tests_e2e::{federation::Federation, http};

const TOMBOLO: &str = env!("CARGO_BIN_EXE_tombolo-e2e");
const PASSWORD: &str = "canary-password-5e8f1c";
const NOT_A_KEY: &str = "canary-not-a-key-77aa02";
const BEARER: &str = "canary-bearer-91d3e4";

const APP: &str = r"
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{name: http, port: 9080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {serviceAccountName: NAME, containers: [{name: app, image: x, ports: [{containerPort: 9080}]}]}
---
";
const EDGE: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: good}}
  - {port: {number: 443, name: odd, protocol: HTTPS}, hosts: [b.example], tls: {mode: SIMPLE, credentialName: bad}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ["*"]
  gateways: [istio-system/edge]
  http: [{route: [{destination: {host: front}}]}]
---
"#;

fn secret(name: &str, chain: &str, key: &str) -> String {
    let indent = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: istio-system}}\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: |\n{}  tls.key: |\n{}  password: {PASSWORD}\n---\n",
        indent(chain),
        indent(key)
    )
}

/// What may be seen nowhere, by what it is.
#[derive(Default)]
struct Canaries(Vec<(String, String)>);

impl Canaries {
    fn add(&mut self, what: &str, text: &str) {
        assert!(text.len() >= 16, "{what} is too short to be searched for");
        self.0.push((what.to_owned(), text.to_owned()));
    }

    /// The inner lines of a key: its frame is no secret, and is searched for as such.
    fn add_pem(&mut self, what: &str, pem: &str) {
        let lines = pem.lines().filter(|line| !line.starts_with("---"));
        lines.filter(|line| line.len() >= 32).for_each(|line| self.add(what, line));
    }

    fn seen_in(&self, place: &str, text: &str, found: &mut BTreeSet<String>) {
        for (what, canary) in &self.0 {
            if text.contains(canary.as_str()) {
                found.insert(format!("{what} in {place}"));
            }
        }
    }
}

/// Every file below a folder, with its permissions.
fn files(folder: &Path, into: &mut Vec<(PathBuf, u32)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, facts) = {
            let entry = entry?;
            (entry.path(), entry.metadata()?)
        };
        if facts.is_dir() {
            files(&path, into)?;
        } else if facts.is_file() {
            into.push((path, facts.permissions().mode() & 0o777));
        }
    }
    Ok(())
}

/// What is secret in the state folder: keys and tokens, in files of their owner alone.
fn private(all: &[(PathBuf, u32)], canaries: &mut Canaries) -> usize {
    let mut secrets = 0;
    for (path, mode) in all.iter().filter(|(_, mode)| mode & 0o077 == 0) {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let what = format!("{} (mode {mode:o})", path.display());
        if text.contains("PRIVATE KEY") {
            canaries.add_pem(&what, &text);
            secrets += 1;
        }
        if text.starts_with("eyJ") {
            // The signature; the rest says nothing that is not public.
            canaries.add(&what, text.trim().rsplit('.').next().unwrap_or_default());
            secrets += 1;
        }
    }
    secrets
}

async fn page(address: &str, path: &str, pages: &mut BTreeMap<String, String>) -> Result<String> {
    let answer = http::get(address, path, &[]).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    pages.insert(format!("http://{address}{path}"), text.clone());
    Ok(text)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Every page that a process of a site answers with.
async fn pages(site: &Value, pages: &mut BTreeMap<String, String>) -> Result<()> {
    let control_plane = text(site, "/control_plane/admin");
    for path in ["/", "/status", "/metrics", "/debug/registry"] {
        page(control_plane, path, pages).await?;
    }
    let proxies: Value = serde_json::from_str(&page(control_plane, "/debug/proxies", pages).await?)?;
    let ids = proxies.as_array().into_iter().flatten().filter_map(|p| p["id"].as_str());
    for id in ids {
        page(control_plane, &format!("/debug/config?proxy={id}"), pages).await?;
    }
    let sidecars = site["workloads"].as_array().into_iter().flatten().map(|w| text(w, "/sidecar/admin"));
    for admin in sidecars.chain([text(site, "/ingress/admin"), text(site, "/east_west/admin")]) {
        for path in [
            "/config_dump",
            "/config_dump?include_eds",
            "/certs",
            "/clusters",
            "/clusters?format=json",
            "/listeners?format=json",
        ] {
            page(admin, path, pages).await?;
        }
        for path in ["/listeners", "/server_info", "/stats", "/stats/prometheus", "/ready", "/help"] {
            page(admin, path, pages).await?;
        }
    }
    Ok(())
}

/// Command lines of all processes that run from the folder; a password there is everybody's.
fn command_lines(state: &Path, pages: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path().join("cmdline");
        let Ok(line) = fs::read(&path) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&state.display().to_string()) {
            pages.insert(path.display().to_string(), line);
        }
    }
    Ok(())
}

#[tokio::test]
async fn secrets_are_shown_nowhere() -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let chain = rcgen::CertificateParams::new(vec!["a.example".to_owned()])?.self_signed(&key)?.pem();
    let manifests = tempfile::tempdir()?;
    for (site, name) in [("east", "front"), ("west", "back")] {
        fs::create_dir(manifests.path().join(site))?;
        fs::write(manifests.path().join(site).join("app.yaml"), APP.replace("NAME", name))?;
    }
    let edge = [EDGE.to_owned(), secret("good", &chain, &key.serialize_pem()), secret("bad", &chain, NOT_A_KEY)];
    fs::write(manifests.path().join("east/edge.yaml"), edge.concat())?;
    let sites = ["east", "west"].map(|site| format!("{site}={}", manifests.path().join(site).display()));
    let federation = Federation::start(
        TOMBOLO,
        &["--loopback-base", "44", "--log", "debug", "--site", &sites[0], "--site", &sites[1]],
    )?;

    let mut canaries = Canaries::default();
    canaries.add("a password in a Secret", PASSWORD);
    canaries.add("a key that is none", NOT_A_KEY);
    canaries.add("a client's credential", BEARER);
    canaries.add_pem("the key of a Secret", &key.serialize_pem());
    for frame in ["PRIVATE KEY-----", "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS", "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS"] {
        canaries.add("the frame of a key", frame);
    }

    let workload = federation.workload("east", "front")?;
    let bearer = format!("Bearer {BEARER}");
    // A pod of the other site that has just become ready is known here a moment later.
    let begun = Instant::now();
    loop {
        let proxy = text(&workload, "/sidecar/http_proxy");
        let answer = http::get(proxy, "http://back:9080/", &[("authorization", &bearer)]).await?;
        if answer.field("/workload") == "back-0" {
            break;
        }
        assert!(answer.status == 503 && begun.elapsed() < Duration::from_secs(60), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let east = federation.site("east")?;
    let ingress = text(&east, "/ingress/ports/80").to_owned();
    let answer = http::get(&ingress, "/", &[("authorization", &bearer), ("cookie", &bearer)]).await?;
    assert_eq!(answer.status, 200, "{answer:?}");

    let mut shown = BTreeMap::new();
    for site in ["east", "west"] {
        pages(&federation.site(site)?, &mut shown).await?;
    }
    command_lines(&federation.state(), &mut shown)?;
    shown.insert("what up prints".to_owned(), federation.output());
    let certs = shown.get(&format!("http://{}/certs", text(&east, "/ingress/admin"))).context("a page")?;
    assert!(certs.contains("a.example"), "the key has reached the gateway: {certs}");
    let state = std::process::Command::new(TOMBOLO)
        .args(["federation", "status", "-o", "json", "--state"])
        .arg(federation.state())
        .output()?;
    shown.insert("federation status".to_owned(), String::from_utf8_lossy(&state.stdout).into_owned());
    for site in &sites {
        let (_, folder) = site.split_once('=').context("a site")?;
        let said = std::process::Command::new(TOMBOLO).args(["analyze", "-o", "json", folder]).output()?;
        shown.insert(format!("analyze {folder}"), String::from_utf8_lossy(&said.stdout).into_owned());
    }

    let mut all = Vec::new();
    files(&federation.state(), &mut all)?;
    let secrets = private(&all, &mut canaries);
    assert!(secrets >= 4, "two roots and a token for each proxy, found {secrets}");
    let logs = federation.state().join("logs");
    for (path, mode) in &all {
        if mode & 0o077 != 0 || path.starts_with(&logs) {
            shown.insert(path.display().to_string(), String::from_utf8_lossy(&fs::read(path)?).into_owned());
        }
    }
    assert!(shown.keys().filter(|place| place.ends_with(".log")).count() >= 8, "{:?}", shown.keys());

    let mut found = BTreeSet::new();
    shown.iter().for_each(|(place, text)| canaries.seen_in(place, text, &mut found));
    assert!(found.is_empty(), "{found:#?}");
    Ok(())
}
