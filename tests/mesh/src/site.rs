//! One site: a control plane's engine, its two sources, and what runs in it.
//!
//! Owns how manifests become pods and pods become manifests of the runtime source, as `tombolo up` does it. Never decides what
//! a proxy is told.

use crate::{
    pods::{Gateway, Pod, of_run},
    source::Source,
    tls,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_controlplane_core::{Engine, Exports, Input, SiteSettings};
use tombolo_controlplane_dialect::Context;
use tombolo_federation_model::{ClusterId, Diagnostic, Locality, NetworkId, SiteName, TrustDomain};
use tombolo_federation_registry::{ExportPolicy, Millis, ShardId, ShardSettings};

/// What a site is made of.
#[derive(Debug, Clone)]
pub struct SiteSpec {
    /// Name of site, cluster and network.
    pub name: String,
    /// File names and texts.
    pub files: Vec<(String, String)>,
    /// What peers may see.
    pub export: ExportPolicy,
    /// `region/zone/subzone`; the name of the site when empty.
    pub locality: String,
}

impl SiteSpec {
    /// A site with one file, which shows everything.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            files: vec![("site.yaml".to_owned(), text.to_owned())],
            export: ExportPolicy::All,
            locality: String::new(),
        }
    }

    /// The same, showing only what manifests export.
    #[must_use]
    pub fn declared_only(mut self) -> Self {
        self.export = ExportPolicy::DeclaredOnly;
        self
    }

    /// The same with one more file.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }
}

/// A site.
#[derive(Debug)]
pub struct Site {
    name: String,
    trust_domain: TrustDomain,
    engine: Engine,
    manifests: Source,
    runtime: Source,
    pods: BTreeMap<String, Pod>,
    stopped: BTreeSet<String>,
    next_pod: u8,
    ingress: Gateway,
    east_west: Gateway,
    bundles: BTreeMap<TrustDomain, Vec<Vec<u8>>>,
    told: Option<BTreeMap<TrustDomain, Vec<Vec<u8>>>>,
    touched: bool,
}

fn parsed<T, E: std::fmt::Display>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> T {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

impl Site {
    /// The n-th site of a mesh.
    #[must_use]
    pub(crate) fn new(spec: &SiteSpec, number: u8, now: Millis) -> Self {
        let name = spec.name.as_str();
        let cluster = parsed(name, ClusterId::parse);
        let trust_domain = parsed(&format!("{name}.local"), TrustDomain::parse);
        let network = parsed(name, NetworkId::parse);
        let locality = if spec.locality.is_empty() { name } else { &spec.locality };
        let mut settings =
            SiteSettings::new(parsed(name, SiteName::parse), cluster.clone(), network.clone(), trust_domain.clone());
        settings.locality = Locality::parse(locality);
        settings.export = spec.export;
        let mut engine = Engine::new(settings);
        let context = Context::new(cluster.clone(), trust_domain.clone());
        let mut source = |name: &str| {
            let shard = ShardId::own(cluster.clone(), name);
            let settings = ShardSettings {
                network: network.clone(),
                locality: Locality::parse(locality),
                trust_domain: trust_domain.clone(),
                lease: None,
                own: true,
            };
            engine.apply(Input::Declare(shard.clone(), settings), now);
            Source::new(context.clone(), shard)
        };
        let (mut manifests, mut runtime) = (source("manifests"), source("runtime"));
        spec.files.iter().for_each(|(file, text)| manifests.write(file, text));
        let east_west = Gateway::east_west(number, name);
        runtime.write("east-west-gateway.yaml", &east_west.manifest());
        let root = tls::root(&trust_domain);
        Self {
            name: spec.name.clone(),
            bundles: BTreeMap::from([(trust_domain.clone(), vec![root])]),
            trust_domain,
            engine,
            manifests,
            runtime,
            pods: BTreeMap::new(),
            stopped: BTreeSet::new(),
            next_pod: 1,
            ingress: Gateway::ingress(number),
            east_west,
            told: None,
            touched: true,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The root of its identities.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The user's manifests.
    #[must_use]
    pub fn manifests(&self) -> &Source {
        &self.manifests
    }

    /// What runs, by name.
    #[must_use]
    pub fn pods(&self) -> &BTreeMap<String, Pod> {
        &self.pods
    }

    /// A pod.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.get(name).unwrap_or_else(|| panic!("no pod {name} in {}: {:?}", self.name, self.pods.keys()))
    }

    pub(crate) fn gateways(&self) -> [&Gateway; 2] {
        [&self.ingress, &self.east_west]
    }

    /// Replaces a file of the user's.
    pub fn write(&mut self, file: &str, text: &str) {
        self.manifests.write(file, text);
        self.touched = true;
    }

    /// Replaces a part of a file of the user's.
    ///
    /// # Panics
    /// When the part is not there.
    pub fn edit(&mut self, file: &str, from: &str, to: &str) {
        let text = self.manifests.file(file).unwrap_or_default();
        assert!(text.contains(from), "{file} has no {from:?}");
        let text = text.replace(from, to);
        self.write(file, &text);
    }

    /// Removes a file of the user's.
    pub fn remove(&mut self, file: &str) {
        self.manifests.remove(file);
        self.touched = true;
    }

    /// Says whether a pod takes requests.
    pub fn set_ready(&mut self, pod: &str, ready: bool) {
        self.pods.get_mut(pod).unwrap_or_else(|| panic!("no pod {pod}")).ready = ready;
        self.touched = true;
    }

    /// Ends a pod; it comes back, with the same address, by [`start`](Self::start).
    pub fn stop(&mut self, pod: &str) {
        self.stopped.insert(pod.to_owned());
        self.touched = true;
    }

    /// Starts a pod that was ended.
    pub fn start(&mut self, pod: &str) {
        self.stopped.remove(pod);
        self.touched = true;
    }

    pub(crate) fn runs(&self, pod: &str) -> bool {
        self.pods.contains_key(pod) && !self.stopped.contains(pod)
    }

    /// Everything that is wrong with what was written.
    #[must_use]
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.manifests.reading().diagnostics.iter().cloned().chain(self.engine.diagnostics()).collect()
    }

    pub(crate) fn exports(&self) -> Exports {
        self.engine.exports()
    }

    /// The roots of a trust domain, as a peer shows them. The own ones are nobody else's to say.
    pub(crate) fn believe(&mut self, domain: TrustDomain, roots: Vec<Vec<u8>>) {
        if domain != self.trust_domain {
            self.bundles.insert(domain, roots);
        }
    }

    /// Tells the engine what changed; true when anything did.
    pub(crate) fn refresh(&mut self, now: Millis) -> bool {
        let mut inputs = Vec::new();
        if std::mem::take(&mut self.touched) {
            inputs.extend(self.manifests.refresh());
            self.schedule();
            inputs.extend(self.runtime.refresh());
        }
        if self.told.as_ref() != Some(&self.bundles) {
            self.told = Some(self.bundles.clone());
            inputs.push(Input::Bundles(self.bundles.clone()));
        }
        let any = !inputs.is_empty();
        inputs.into_iter().for_each(|input| self.engine.apply(input, now));
        any
    }

    /// Starts what manifests ask for and ends what they no longer do.
    fn schedule(&mut self) {
        let wanted: Vec<Pod> = self.manifests.reading().runs().iter().flat_map(of_run).collect();
        let names: BTreeSet<String> = wanted.iter().map(|pod| pod.name.clone()).collect();
        self.pods.retain(|name, _| names.contains(name));
        for pod in wanted {
            let known = self.pods.get(&pod.name).map(|old| (old.ip, old.app, old.ready));
            let placed = match known {
                Some((ip, app, ready)) => Pod { ip, app, ready, ..pod },
                None => {
                    self.next_pod += 1;
                    pod.at(self.next_pod - 1)
                }
            };
            self.pods.insert(placed.name.clone(), placed);
        }
        let running = self.pods.values().filter(|pod| !self.stopped.contains(&pod.name));
        let files: BTreeMap<String, String> =
            running.map(|pod| (format!("pod.{}.{}.yaml", pod.namespace, pod.name), pod.manifest())).collect();
        let gone: Vec<String> = self
            .runtime
            .files()
            .filter(|file| file.starts_with("pod.") && !files.contains_key(*file))
            .map(str::to_owned)
            .collect();
        gone.iter().for_each(|file| self.runtime.remove(file));
        files.iter().for_each(|(file, text)| self.runtime.write(file, text));
    }

    /// Complaints about what the machinery itself wrote: there must be none.
    #[must_use]
    pub fn runtime_diagnostics(&self) -> &[Diagnostic] {
        &self.runtime.reading().diagnostics
    }
}
