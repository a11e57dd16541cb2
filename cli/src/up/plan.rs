//! Where everything listens: one 127.N.0.0/16 for each site, fixed addresses for its daemons, two for every pod.
//!
//! Pure but for [`probe`], which tries to bind. Owns the numbers; nobody else writes an address by hand.

use anyhow::{Context, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};
use tombolo_federation_model::{SiteName, TrustDomain};

/// Ports below this cannot be bound without privileges.
const PRIVILEGED: u16 = 1024;
/// What is added to them.
pub(crate) const LOW_PORT_OFFSET: u16 = 10_000;
/// Ports of a sidecar that no application can have on the same address.
pub(crate) const SIDECAR_PROXY_PORT: u16 = 15080;
pub(crate) const SIDECAR_ADMIN_PORT: u16 = 15020;
/// Where an east-west gateway takes mutual TLS from other networks.
pub(crate) const EAST_WEST_PORT: u16 = 15443;
/// Pods of one block of 256 addresses, and blocks for pods.
const PER_BLOCK: u16 = 250;
const BLOCKS: u16 = 64;

/// One site: a name, a folder, and a block of loopback addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SitePlan {
    pub(crate) name: SiteName,
    pub(crate) trust_domain: TrustDomain,
    /// The user's manifests.
    pub(crate) folder: PathBuf,
    /// The second byte of its addresses.
    pub(crate) block: u8,
}

impl SitePlan {
    fn ip(&self, third: u8, fourth: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.block, third, fourth))
    }

    pub(crate) fn xds(&self) -> SocketAddr {
        SocketAddr::new(self.ip(0, 1), 15012)
    }

    pub(crate) fn xds_plaintext(&self) -> SocketAddr {
        SocketAddr::new(self.ip(0, 1), 15010)
    }

    pub(crate) fn peering(&self) -> SocketAddr {
        SocketAddr::new(self.ip(0, 1), 15020)
    }

    pub(crate) fn control_plane_admin(&self) -> SocketAddr {
        SocketAddr::new(self.ip(0, 1), 15014)
    }

    pub(crate) fn ingress(&self) -> IpAddr {
        self.ip(0, 2)
    }

    pub(crate) fn east_west(&self) -> IpAddr {
        self.ip(0, 3)
    }

    /// Where servers outside of the mesh listen.
    pub(crate) fn outside(&self) -> IpAddr {
        self.ip(200, 1)
    }

    /// The address by which others know a pod: its sidecar listens there.
    pub(crate) fn pod(&self, slot: Slot) -> IpAddr {
        self.ip(slot.block(), slot.host())
    }

    /// Where the application of a pod listens.
    pub(crate) fn app(&self, slot: Slot) -> IpAddr {
        self.ip(slot.block() + 128, slot.host())
    }

    /// Every fixed address, with what is there.
    pub(crate) fn fixed(&self) -> Vec<(SocketAddr, &'static str)> {
        vec![
            (self.xds(), "control plane"),
            (self.xds_plaintext(), "control plane"),
            (self.peering(), "control plane"),
            (self.control_plane_admin(), "control plane"),
            (gateway_admin(self.ingress()), "ingress gateway"),
            (gateway_admin(self.east_west()), "east-west gateway"),
            (SocketAddr::new(self.east_west(), EAST_WEST_PORT), "east-west gateway"),
        ]
    }
}

/// The admin address of a gateway.
pub(crate) fn gateway_admin(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 15000)
}

/// A pod's place in the address plan of its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u16);

impl Slot {
    fn block(self) -> u8 {
        u8::try_from(1 + self.0 / PER_BLOCK).unwrap_or(u8::MAX)
    }

    fn host(self) -> u8 {
        u8::try_from(1 + self.0 % PER_BLOCK).unwrap_or(u8::MAX)
    }
}

/// Hands out slots. A slot that was given back is used again last, so that nobody talks to a new pod by the address of
/// an old one.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    next: u16,
    used: BTreeSet<Slot>,
}

impl Slots {
    pub(crate) fn take(&mut self) -> Option<Slot> {
        let all = PER_BLOCK * BLOCKS;
        for _ in 0..all {
            let slot = Slot(self.next);
            self.next = (self.next + 1) % all;
            if self.used.insert(slot) {
                return Some(slot);
            }
        }
        None
    }

    pub(crate) fn give_back(&mut self, slot: Slot) {
        self.used.remove(&slot);
    }
}

/// Where each of a pod's ports is served: ports that need privileges are moved, to the next free number.
pub(crate) fn served(ports: impl IntoIterator<Item = u16>) -> BTreeMap<u16, u16> {
    let ports: BTreeSet<u16> = ports.into_iter().filter(|p| *p != 0).collect();
    let mut taken: BTreeSet<u16> = ports.iter().copied().filter(|p| *p >= PRIVILEGED).collect();
    taken.extend([SIDECAR_PROXY_PORT, SIDECAR_ADMIN_PORT]);
    let mut map = BTreeMap::new();
    for port in ports {
        if port >= PRIVILEGED && port != SIDECAR_PROXY_PORT && port != SIDECAR_ADMIN_PORT {
            map.insert(port, port);
            continue;
        }
        let mut at = if port < PRIVILEGED { port + LOW_PORT_OFFSET } else { port + 1 };
        while !taken.insert(at) {
            at += 1;
        }
        map.insert(port, at);
    }
    map
}

/// Where a gateway serves a port of a manifest.
pub(crate) fn gateway_port(port: u16) -> u16 {
    if port < PRIVILEGED { port + LOW_PORT_OFFSET } else { port }
}

/// Sites as the command line names them, each with its block.
///
/// # Errors
/// When a name or a folder is not usable, or the blocks do not fit.
pub(crate) fn sites(named: &[(String, PathBuf)], base: u8) -> anyhow::Result<Vec<SitePlan>> {
    let mut plans: Vec<SitePlan> = Vec::new();
    for (number, (name, folder)) in (1u8..).zip(named) {
        let site = SiteName::parse(name).with_context(|| format!("--site {name}=…"))?;
        if plans.iter().any(|p| p.name == site) {
            bail!("--site {name}=… is given twice");
        }
        let trust_domain = TrustDomain::parse(&format!("{name}.local")).with_context(|| format!("--site {name}=…"))?;
        let block = base.checked_add(number).filter(|b| *b < 255);
        let block =
            block.with_context(|| format!("--loopback-base {base}: no 127.N.0.0/16 is left for site {name}"))?;
        plans.push(SitePlan { name: site, trust_domain, folder: folder.clone(), block });
    }
    Ok(plans)
}

/// Checks that the fixed addresses can be bound, and says which cannot.
///
/// # Errors
/// Names the first address that is taken.
pub(crate) fn probe(sites: &[SitePlan], extra: &[SocketAddr]) -> anyhow::Result<()> {
    let fixed = sites.iter().flat_map(|site| {
        site.fixed().into_iter().map(move |(address, what)| (address, format!("the {what} of {}", site.name)))
    });
    let extra = extra.iter().map(|a| (*a, "a server outside of the mesh".to_owned()));
    for (address, what) in fixed.chain(extra) {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => bail!(
                "{address} is needed for {what}, but another process listens there (`ss -ltnp 'sport = :{}'` shows it); \
                 end it, or choose other addresses with --loopback-base N",
                address.port()
            ),
            Err(e) => bail!("{address} is needed for {what}, but cannot be bound: {e}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn east() -> SitePlan {
        sites(&[("east".into(), "m".into())], 0).unwrap().remove(0)
    }

    #[test]
    fn every_address_is_in_the_sites_block() {
        let sites = sites(&[("east".into(), "a".into()), ("west".into(), "b".into())], 4).unwrap();
        assert_eq!(sites[0].xds().to_string(), "127.5.0.1:15012");
        assert_eq!(sites[1].east_west().to_string(), "127.6.0.3");
        assert_eq!(sites[1].trust_domain.as_str(), "west.local");
        let fixed: BTreeSet<_> = sites.iter().flat_map(SitePlan::fixed).map(|(a, _)| a).collect();
        assert_eq!(fixed.len(), 14, "two daemons share an address");
    }

    #[test]
    fn pods_and_their_applications_never_share_an_address() {
        let (site, mut slots, mut seen) = (east(), Slots::default(), BTreeSet::new());
        for number in 0..PER_BLOCK * BLOCKS {
            let slot = slots.take().unwrap();
            assert!(seen.insert(site.pod(slot)) && seen.insert(site.app(slot)), "slot {number}");
        }
        assert_eq!(slots.take(), None);
        assert!(!seen.contains(&site.outside()) && !seen.contains(&site.ingress()));
    }

    #[test]
    fn a_returned_slot_is_used_last() {
        let mut slots = Slots::default();
        let first = slots.take().unwrap();
        slots.give_back(first);
        assert_ne!(slots.take(), Some(first));
        assert_eq!(east().pod(first).to_string(), "127.1.1.1");
        assert_eq!(east().app(first).to_string(), "127.1.129.1");
    }

    #[test]
    fn low_ports_move_and_never_collide() {
        let check = |ports: &[u16], expect: &[(u16, u16)]| {
            assert_eq!(served(ports.iter().copied()), expect.iter().copied().collect(), "{ports:?}");
        };
        check(&[9080], &[(9080, 9080)]);
        check(&[80, 443], &[(80, 10080), (443, 10443)]);
        check(&[80, 10080], &[(80, 10081), (10080, 10080)]);
        check(&[15020, 0], &[(15020, 15021)]);
        check(&[], &[]);
    }

    #[test]
    fn bad_sites_are_named() {
        let check = |named: &[(&str, &str)], base, expect: &str| {
            let named: Vec<_> = named.iter().map(|(n, d)| ((*n).to_owned(), PathBuf::from(d))).collect();
            let error = format!("{:#}", sites(&named, base).unwrap_err());
            assert!(error.contains(expect), "{error:?} should say {expect:?}");
        };
        check(&[("a", "x"), ("a", "y")], 0, "given twice");
        check(&[("A B", "x")], 0, "--site A B");
        check(&[("a", "x")], 254, "--loopback-base 254");
    }

    #[test]
    fn a_busy_address_is_named() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = busy.local_addr().unwrap();
        let error = probe(&[], &[address]).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--loopback-base"), "{error}");
    }
}
