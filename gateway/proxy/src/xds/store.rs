//! The last good resources on disk, so that a gateway that starts while its control plane is away still serves.
//!
//! Owns one file, written whole and renamed into place. Private keys never reach it: a secret is kept only when it is a
//! trust bundle. Resources of another node are not taken.

use prost::Message as _;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use tombolo_controlplane_api::xds::{
    envoy::{
        extensions::transport_sockets::tls::v3::{Secret, secret::Type},
        service::discovery::v3::{DeltaDiscoveryResponse, Resource as Wrapped},
    },
    google::protobuf::Any,
};
use tombolo_federation_sync::{Resource, types};

const NAME: &str = "last-good-config.pb";
/// Begins the file; a change of its format changes this.
const MAGIC: &[u8] = b"tombolo-gateway-state-1\n";

/// Resources by type and name.
pub(crate) type Kept = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Resource>>>;

/// The file of one gateway.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
    /// Which node the resources are for.
    node: Vec<u8>,
}

impl Store {
    /// A store in a directory, which is made when missing.
    pub(crate) fn open(directory: &Path, node: Vec<u8>) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), node })
    }

    /// Writes everything. Blocks; call it where that is allowed.
    pub(crate) fn save(&self, kept: &Kept) -> io::Result<()> {
        let bytes = encode(kept, &self.node);
        let (temporary, last) =
            (self.directory.join(format!(".{NAME}.{}", std::process::id())), self.directory.join(NAME));
        let mut file = File::create(&temporary)?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &last)) {
            // The old file is untouched; the half-written one is only litter.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(())
    }

    /// Reads what was saved; nothing when there is nothing, or it is another node's or damaged.
    pub(crate) fn load(&self) -> io::Result<Option<Kept>> {
        let bytes = match fs::read(self.directory.join(NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        decode(&bytes, &self.node)
    }
}

/// The file of a node.
pub(crate) fn encode(kept: &Kept, node: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    put(&mut bytes, node);
    for (type_url, resources) in kept {
        let resources = resources.values().filter(|r| may_be_kept(type_url, r));
        let message = DeltaDiscoveryResponse {
            type_url: type_url.to_string(),
            resources: resources.map(|r| wrap(type_url, r)).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        put(&mut bytes, &message.encode_to_vec());
    }
    bytes
}

/// Reads such a file; nothing when it is another node's.
pub(crate) fn decode(bytes: &[u8], node: &[u8]) -> io::Result<Option<Kept>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the saved configuration is damaged");
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
    if take(&mut rest).ok_or_else(damaged)? != node {
        return Ok(None);
    }
    let mut kept = Kept::new();
    while !rest.is_empty() {
        let part = take(&mut rest).ok_or_else(damaged)?;
        let message = DeltaDiscoveryResponse::decode(part).map_err(|_| damaged())?;
        let of_type = kept.entry(Arc::from(message.type_url)).or_default();
        for wrapped in message.resources {
            let name: Arc<str> = Arc::from(wrapped.name);
            let body = wrapped.resource.map(|any| any.value).unwrap_or_default().into();
            of_type.insert(name.clone(), Arc::new(Resource { name, version: Arc::from(wrapped.version), body }));
        }
    }
    Ok(Some(kept))
}

fn wrap(type_url: &str, resource: &Resource) -> Wrapped {
    Wrapped {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }),
        ..Wrapped::default()
    }
}

/// Only trust among the secrets: a key on disk would outlive its process.
fn may_be_kept(type_url: &str, resource: &Resource) -> bool {
    type_url != types::SECRET
        || Secret::decode(resource.body.clone()).is_ok_and(|s| matches!(s.r#type, Some(Type::ValidationContext(_))))
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    out.extend_from_slice(part);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_at_checked(8)?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (part, tail) = tail.split_at_checked(length)?;
    *rest = tail;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_controlplane_api::xds::envoy::extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, TlsCertificate,
    };

    fn sample() -> Kept {
        let secret = |name: &str, kind: Type| {
            let body = Secret { name: name.into(), r#type: Some(kind) }.encode_to_vec();
            (Arc::<str>::from(name), Arc::new(Resource::new(name, body)))
        };
        Kept::from([
            (types::CLUSTER.into(), BTreeMap::from([("c".into(), Arc::new(Resource::new("c", vec![1, 2])))])),
            (
                types::SECRET.into(),
                BTreeMap::from([
                    secret("ROOTCA", Type::ValidationContext(CertificateValidationContext::default())),
                    secret("kubernetes://shop", Type::TlsCertificate(TlsCertificate::default())),
                ]),
            ),
        ])
    }

    #[test]
    fn what_is_saved_is_loaded_without_keys() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), b"me".to_vec()).unwrap();
        assert!(store.load().unwrap().is_none());
        store.save(&sample()).unwrap();
        let loaded = store.load().unwrap().unwrap();
        assert_eq!(loaded[types::CLUSTER], sample()[types::CLUSTER]);
        assert_eq!(loaded[types::SECRET].keys().map(|k| &**k).collect::<Vec<_>>(), ["ROOTCA"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn another_nodes_or_damaged_files_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path(), b"me".to_vec()).unwrap().save(&sample()).unwrap();
        let other = Store::open(dir.path(), b"you".to_vec()).unwrap();
        assert!(other.load().unwrap().is_none());
        let path = dir.path().join(NAME);
        let bytes = fs::read(&path).unwrap();
        for cut in [3, MAGIC.len() + 3, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(Store::open(dir.path(), b"me".to_vec()).unwrap().load().is_err(), "cut at {cut}");
        }
    }
}
