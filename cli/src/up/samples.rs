//! The sample shop, embedded, so that `tombolo up` needs no other file.
//!
//! Owns the list of files and the addresses in them that depend on the address plan. The files under `samples/shop` are
//! the only truth: they are what is embedded.

use super::partner::Partner;
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
};

macro_rules! shop {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../samples/shop/", $path)))),*]
    };
}

/// Path below the sample's folder, and content.
const FILES: &[(&str, &str)] = shop![
    "east/catalog.yaml",
    "east/ingress.yaml",
    "east/partner.yaml",
    "east/reviews-routes.yaml",
    "east/reviews.yaml",
    "east/storefront.yaml",
    "vm/inventory.yaml",
    "west/catalog.yaml",
    "west/ratings.yaml",
    "west/reviews.yaml",
];

/// The sites of the sample, in the order of their address blocks.
const SITES: [&str; 3] = ["east", "west", "vm"];
/// Where the files say that the partner listens, and where its roots are.
const PARTNER_IP: &str = "127.1.200.1";
const PARTNER_BY_NAME_PORT: u16 = 18088;
const PARTNER_ROOTS: &str = "/etc/tombolo/partner-roots.pem";

/// The sites of the sample, when it is in a folder.
pub(crate) fn sites(folder: &Path) -> Vec<(String, PathBuf)> {
    SITES.iter().map(|site| ((*site).to_owned(), folder.join(site))).collect()
}

/// Writes the sample into a folder, with where the partner really is.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn unpack(into: &Path, partner: &Partner) -> anyhow::Result<()> {
    for (name, text) in FILES {
        let path = into.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let text = text
            .replace(PARTNER_IP, &partner.plain[0].ip().to_string())
            .replace(&PARTNER_BY_NAME_PORT.to_string(), &partner.plain[1].port().to_string())
            .replace(PARTNER_ROOTS, &partner.roots().display().to_string());
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_sample_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/shop");
        let mut found = Vec::new();
        for site in SITES {
            for entry in fs::read_dir(root.join(site)).unwrap() {
                found.push(format!("{site}/{}", entry.unwrap().file_name().to_string_lossy()));
            }
        }
        found.sort();
        let embedded: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, embedded);
    }

    #[test]
    fn the_partner_moves_with_the_address_plan() {
        let folder = tempfile::tempdir().unwrap();
        let partner = Partner::new("127.9.200.1".parse().unwrap(), 8, folder.path().join("outside"));
        unpack(folder.path(), &partner).unwrap();
        assert!(sites(folder.path()).iter().all(|(_, folder)| folder.is_dir()));
        let text = fs::read_to_string(folder.path().join("east/partner.yaml")).unwrap();
        assert!(text.contains("address: 127.9.200.1") && text.contains("18096"), "{text}");
        assert!(!text.contains(PARTNER_IP) && !text.contains(PARTNER_ROOTS), "{text}");
    }
}
