//! What a cluster's machinery would report, as manifests: running pods, registered machines, the east-west gateway's
//! address and its listener.
//!
//! Owns the runtime folder of a site. Never reads what users wrote. A file is replaced as a whole, so that no reader
//! sees half of one.

use super::{
    plan::{EAST_WEST_PORT, SitePlan, Slot, served},
    pods::{PodSpec, Registration},
};
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Tells the registry where a port is really served.
const SERVED_PORTS: &str = "tombolo.io/served-ports";
/// Tells the registry that a sidecar takes mutual TLS for the workload.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Namespace of gateways, and of settings for the whole mesh.
pub(crate) const ROOT_NAMESPACE: &str = "istio-system";

/// The manifests of one site's running things.
#[derive(Debug)]
pub(crate) struct Runtime {
    folder: PathBuf,
    scratch: PathBuf,
}

impl Runtime {
    /// Creates the folder.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn create(site_folder: &Path) -> anyhow::Result<Self> {
        let runtime = Self { folder: site_folder.join("runtime"), scratch: site_folder.join("scratch") };
        for folder in [&runtime.folder, &runtime.scratch] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(runtime)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a pod's manifest, or that of a machine.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn pod(&self, site: &SitePlan, pod: &PodSpec, slot: Slot, ready: bool) -> anyhow::Result<()> {
        let object = match (pod.registration, ready) {
            (Registration::Pod, _) => pod_manifest(site, pod, slot, ready),
            (Registration::Entry, true) => entry_manifest(site, pod, slot),
            // A machine that is down takes its registration back; only pods have a state of their own to report.
            (Registration::Entry, false) => {
                self.remove(pod);
                return Ok(());
            }
        };
        self.write(&file_name(pod), &[object])
    }

    /// Removes a pod's manifest. One that is gone already is fine.
    pub(crate) fn remove(&self, pod: &PodSpec) {
        let _ = fs::remove_file(self.folder.join(file_name(pod)));
    }

    /// Writes what makes the east-west gateway known: its address, and the listener that passes on by SNI.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn east_west(&self, site: &SitePlan) -> anyhow::Result<()> {
        self.write("east-west-gateway.yaml", &[east_west_service(site), east_west_gateway()])
    }

    fn write(&self, name: &str, objects: &[Value]) -> anyhow::Result<()> {
        let mut text = String::from("# Written by tombolo up; changes are lost.\n");
        for object in objects {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(object).context("cannot write a manifest")?);
        }
        let scratch = self.scratch.join(name);
        let target = self.folder.join(name);
        fs::write(&scratch, text).with_context(|| format!("cannot write {}", scratch.display()))?;
        fs::rename(&scratch, &target).with_context(|| format!("cannot write {}", target.display()))
    }
}

fn file_name(pod: &PodSpec) -> String {
    format!("{}.{}.yaml", pod.namespace, pod.name)
}

fn labels(pod: &PodSpec) -> Map<String, Value> {
    let mut labels: Map<String, Value> = pod.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    if pod.sidecar {
        labels.insert(TLS_MODE.to_owned(), json!("istio"));
    }
    labels
}

fn pod_manifest(site: &SitePlan, pod: &PodSpec, slot: Slot, ready: bool) -> Value {
    let ip = site.pod(slot).to_string();
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|port| match port.name.as_str() {
            "" => json!({"containerPort": port.number}),
            name => json!({"name": name, "containerPort": port.number}),
        })
        .collect();
    let moved: Vec<String> = served(pod.ports.iter().map(|p| p.number))
        .iter()
        .filter(|(port, at)| port != at)
        .map(|(port, at)| format!("{port}={at}"))
        .collect();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": labels(pod)},
        "spec": {
            "serviceAccountName": pod.service_account,
            "nodeName": site.name.as_str(),
            "containers": [{"name": "app", "image": "tombolo/workload", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": truth(ready)}],
        },
    });
    if !moved.is_empty() {
        object["metadata"]["annotations"] = json!({SERVED_PORTS: moved.join(",")});
    }
    object
}

fn entry_manifest(site: &SitePlan, pod: &PodSpec, slot: Slot) -> Value {
    let at = served(pod.ports.iter().map(|p| p.number));
    let ports: Map<String, Value> = pod
        .ports
        .iter()
        .map(|port| {
            let name = if port.name.is_empty() { format!("port-{}", port.number) } else { port.name.clone() };
            (name, json!(at.get(&port.number).copied().unwrap_or(port.number)))
        })
        .collect();
    let mut object = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": labels(pod)},
        "spec": {
            "address": site.pod(slot).to_string(),
            "labels": labels(pod),
            "serviceAccount": pod.service_account,
            "ports": ports,
        },
    });
    if let Some(locality) = &pod.locality {
        object["spec"]["locality"] = json!(locality);
    }
    object
}

fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

fn east_west_service(site: &SitePlan) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "istio-eastwestgateway",
            "namespace": ROOT_NAMESPACE,
            "labels": {
                "istio": "eastwestgateway",
                "app": "istio-eastwestgateway",
                "topology.istio.io/network": site.name.as_str(),
            },
        },
        "spec": {
            "type": "LoadBalancer",
            "selector": {"istio": "eastwestgateway"},
            "ports": [{"name": "tls", "port": EAST_WEST_PORT, "targetPort": EAST_WEST_PORT}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": site.east_west().to_string()}]}},
    })
}

fn east_west_gateway() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "cross-network-gateway", "namespace": ROOT_NAMESPACE},
        "spec": {
            "selector": {"istio": "eastwestgateway"},
            "servers": [{
                "port": {"number": EAST_WEST_PORT, "name": "tls", "protocol": "TLS"},
                "tls": {"mode": "AUTO_PASSTHROUGH"},
                "hosts": ["*"],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::plan, *};
    use crate::up::pods::PortSpec;

    fn fixture() -> (SitePlan, PodSpec, Slot) {
        let site = plan::sites(&[("east".into(), "m".into())], 0).unwrap().remove(0);
        let pod = PodSpec {
            name: "web-0".into(),
            namespace: "shop".into(),
            owner: "web".into(),
            registration: Registration::Pod,
            // Values that YAML would read as something else if they were not quoted.
            labels: [("version", "1.10"), ("on", "true"), ("nothing", "null"), ("size", "1e3")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            service_account: "web".into(),
            ports: vec![PortSpec { number: 80, name: "http".into() }, PortSpec { number: 9080, name: String::new() }],
            locality: Some("r/z".into()),
            sidecar: true,
        };
        (site, pod, plan::Slots::default().take().unwrap())
    }

    fn written(name: &str, registration: Registration, ready: bool) -> Value {
        let (site, mut pod, slot) = fixture();
        pod.registration = registration;
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::create(folder.path()).unwrap();
        runtime.pod(&site, &pod, slot, ready).unwrap();
        let text = fs::read_to_string(runtime.folder().join(name)).unwrap();
        runtime.remove(&pod);
        assert!(!runtime.folder().join(name).exists());
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn a_pod_says_where_it_is_and_whether_it_is_ready() {
        let pod = written("shop.web-0.yaml", Registration::Pod, false);
        assert_eq!(pod["status"]["podIP"], "127.1.1.1");
        assert_eq!(pod["status"]["conditions"][0]["status"], "False");
        assert_eq!(pod["metadata"]["annotations"][SERVED_PORTS], "80=10080");
        assert_eq!(pod["metadata"]["labels"]["version"], "1.10");
        assert_eq!(pod["metadata"]["labels"]["on"], "true");
        assert_eq!(pod["metadata"]["labels"]["nothing"], "null");
        assert_eq!(pod["metadata"]["labels"]["size"], "1e3");
        assert_eq!(pod["metadata"]["labels"][TLS_MODE], "istio");
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["name"], "http");
    }

    #[test]
    fn a_machine_is_an_entry_with_the_ports_it_serves() {
        let entry = written("shop.web-0.yaml", Registration::Entry, true);
        assert_eq!(entry["kind"], "WorkloadEntry");
        assert_eq!(entry["spec"]["address"], "127.1.1.1");
        assert_eq!(entry["spec"]["locality"], "r/z");
        assert_eq!(entry["spec"]["ports"]["http"], 10080);
        assert_eq!(entry["spec"]["ports"]["port-9080"], 9080);
    }

    #[test]
    fn a_machine_that_is_down_is_not_registered() {
        let (site, mut pod, slot) = fixture();
        pod.registration = Registration::Entry;
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::create(folder.path()).unwrap();
        for ready in [false, true, false] {
            runtime.pod(&site, &pod, slot, ready).unwrap();
            assert_eq!(runtime.folder().join("shop.web-0.yaml").exists(), ready);
        }
    }

    #[test]
    fn the_gateway_of_a_network_has_an_address() {
        let (site, _, _) = fixture();
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::create(folder.path()).unwrap();
        runtime.east_west(&site).unwrap();
        let text = fs::read_to_string(runtime.folder().join("east-west-gateway.yaml")).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(objects[0]["status"]["loadBalancer"]["ingress"][0]["ip"], "127.1.0.3");
        assert_eq!(objects[0]["metadata"]["labels"]["topology.istio.io/network"], "east");
        assert_eq!(objects[1]["spec"]["servers"][0]["tls"]["mode"], "AUTO_PASSTHROUGH");
    }
}
