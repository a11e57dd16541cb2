//! `tombolo analyze DIR…`: what a control plane would say about manifests, without one.
//!
//! Reads with the same code as the control plane, so that both judge alike. Each argument is one cluster; all of them
//! together are the federation in which references are looked up. Owns the output and the exit code.

use super::{fail, offline};
use crate::{
    args::{AnalyzeArgs, Output},
    up::folder,
};
use anyhow::Context;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use tombolo_controlplane_dialect::{self as dialect, Document, Reading};
use tombolo_federation_model::{ClusterId, Diagnostic, Namespace, Severity, TrustDomain};

/// One argument: a cluster with its manifests.
pub(super) struct Cluster {
    pub(super) id: ClusterId,
    pub(super) trust_domain: TrustDomain,
    pub(super) reading: Reading,
}

pub(crate) fn main(args: &AnalyzeArgs) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(e) => fail(&e),
    }
}

fn run(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let namespace = Namespace::parse(&args.namespace).with_context(|| format!("--namespace {}", args.namespace))?;
    let clusters = clusters(&args.paths, &namespace)?;
    let found = diagnostics(&clusters)?;
    print(&found, &clusters, args.output)?;
    let threshold = if args.strict { Severity::Warning } else { Severity::Error };
    Ok(if found.iter().any(|d| d.severity >= threshold) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn clusters(paths: &[PathBuf], namespace: &Namespace) -> anyhow::Result<Vec<Cluster>> {
    let mut clusters: Vec<Cluster> = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let mut id = cluster_name(path, number)?;
        if clusters.iter().any(|c| c.id == id) {
            id = ClusterId::parse(&format!("{id}-{number}"))?;
        }
        let trust_domain = TrustDomain::parse(&format!("{id}.local"))?;
        let mut context = dialect::Context::new(id.clone(), trust_domain.clone());
        context.default_namespace = namespace.clone();
        let reading = dialect::read(&documents(path)?, &context);
        clusters.push(Cluster { id, trust_domain, reading });
    }
    Ok(clusters)
}

/// The folder's own name where it can be a cluster's.
fn cluster_name(path: &Path, number: usize) -> anyhow::Result<ClusterId> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = absolute.file_stem().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ClusterId::parse(&name) {
        Ok(id) if TrustDomain::parse(&format!("{id}.local")).is_ok() => Ok(id),
        Ok(_) | Err(_) => Ok(ClusterId::parse(&format!("cluster-{number}"))?),
    }
}

fn documents(path: &Path) -> anyhow::Result<Vec<Document>> {
    let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if meta.is_dir() {
        return folder::read_documents(path);
    }
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(vec![Document::new(path.display().to_string(), text)])
}

/// Everything to complain about, worst first, then as it stands in the files.
fn diagnostics(clusters: &[Cluster]) -> anyhow::Result<Vec<Diagnostic>> {
    let mut found: Vec<Diagnostic> = clusters.iter().flat_map(|c| c.reading.diagnostics.iter().cloned()).collect();
    let bound = offline::complaints(clusters)?;
    found.extend(bound.into_iter().map(|complaint| with_place(complaint, clusters)));
    found.sort_by_key(|d| std::cmp::Reverse(d.severity));
    found.dedup();
    Ok(found)
}

/// The engine does not know files; the reading does.
fn with_place(mut complaint: Diagnostic, clusters: &[Cluster]) -> Diagnostic {
    if complaint.place.is_empty()
        && let Some(object) = clusters.iter().find_map(|c| c.reading.objects.get(&complaint.object))
    {
        complaint.place = format!("{}:{}", object.place, object.line);
    }
    complaint
}

fn print(found: &[Diagnostic], clusters: &[Cluster], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(found).context("cannot print")?);
        return Ok(());
    }
    for d in found {
        println!("{}", line(d, output == Output::Wide));
    }
    let objects: usize = clusters.iter().map(|c| c.reading.objects.len()).sum();
    let count = |severity| found.iter().filter(|d| d.severity == severity).count();
    println!(
        "{objects} objects read, {} errors, {} warnings, {} remarks",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Info)
    );
    Ok(())
}

/// As compilers print: place first, so that editors can jump there. Further lines of a message are indented.
fn line(d: &Diagnostic, wide: bool) -> String {
    let severity = match d.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let place = if d.place.is_empty() { String::new() } else { format!("{}: ", d.place) };
    let code = if wide { format!("[{}]", d.code) } else { String::new() };
    let field = if d.field.is_empty() { String::new() } else { format!(" {}", d.field) };
    let message = d.message.trim_end().replace('\n', "\n    ");
    format!("{place}{severity}{code}: {}{field}: {message}", d.object)
}
