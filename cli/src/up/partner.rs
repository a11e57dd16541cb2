//! The server outside of the mesh that the embedded shop calls: where it listens, and the certificates that it shows.
//!
//! Owns an authority of its own, made anew at each start and unknown to every site, and a second one that vouches for nobody
//! here: with its roots a call must fail. Their keys are gone when this is done; the server's is readable by its owner only.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The name that its certificate has.
const NAME: &str = "secure-partner.example.com";
const PORT: u16 = 8088;
const BY_NAME_PORT: u16 = 18088;
const SECURE_PORT: u16 = 8443;

/// Where it listens and what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Partner {
    /// By address, and where `localhost` leads.
    pub(crate) plain: [SocketAddr; 2],
    /// With TLS.
    pub(crate) secure: SocketAddr,
    folder: PathBuf,
}

impl Partner {
    /// Beside the sites, with files in a folder.
    pub(crate) fn new(outside: IpAddr, base: u8, folder: PathBuf) -> Self {
        let localhost = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), BY_NAME_PORT + u16::from(base));
        Self {
            plain: [SocketAddr::new(outside, PORT), localhost],
            secure: SocketAddr::new(outside, SECURE_PORT),
            folder,
        }
    }

    /// Every address.
    pub(crate) fn addresses(&self) -> [SocketAddr; 3] {
        [self.plain[0], self.plain[1], self.secure]
    }

    /// The roots that its clients need.
    pub(crate) fn roots(&self) -> PathBuf {
        self.folder.join("roots.pem")
    }

    /// Its own certificate and key.
    pub(crate) fn certificate(&self) -> [PathBuf; 2] {
        [self.folder.join("chain.pem"), self.folder.join("key.pem")]
    }

    /// Makes its certificates.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot create {}", self.folder.display()))?;
        let (issuer, root) = authority("outside authority").context("cannot make certificates")?;
        let (_, other) = authority("another authority").context("cannot make certificates")?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&key, &issuer)?;
        let [chain, private] = self.certificate();
        write(&self.roots(), &root, 0o644)?;
        write(&self.folder.join("other-roots.pem"), &other, 0o644)?;
        write(&chain, &leaf.pem(), 0o644)?;
        write(&private, &key.serialize_pem(), 0o600)
    }
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let open = || {
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())
    };
    open().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_the_owner_may_read_the_key_and_no_authority_stays() {
        let dir = tempfile::tempdir().unwrap();
        let partner = Partner::new("127.9.200.1".parse().unwrap(), 8, dir.path().join("outside"));
        partner.make().unwrap();
        let [_, key] = partner.certificate();
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 4);
        assert_eq!(partner.plain[1].port(), 18096);
    }
}
