//! Addresses and ranges.

use super::{
    Refusal,
    any::{At, Decoded, filled, port, refuse, u32_or},
};
use crate::config::{Address, Cidr, EndpointAddress};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use tombolo_controlplane_api::xds::envoy::config::core::v3::{
    self as core, address::Address as Kind, envoy_internal_address::AddressNameSpecifier, socket_address::PortSpecifier,
};

/// Host (or address) and port.
pub(super) fn host_and_port(address: core::SocketAddress) -> Decoded<(String, u16)> {
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = address;
    // Read where a listener is.
    let _ = ipv4_compat;
    refuse!(protocol, resolver_name, network_namespace_filepath);
    let address = filled(address).at("address")?;
    match port_specifier {
        Some(PortSpecifier::PortValue(value)) => Ok((address, port(value).at("port_value")?)),
        Some(PortSpecifier::NamedPort(_)) => Err(Refusal::unsupported("named_port")),
        None => Err(Refusal::new("port_value", "missing")),
    }
}

pub(super) fn socket(address: core::SocketAddress) -> Decoded<SocketAddr> {
    let (host, port) = host_and_port(address)?;
    let ip: IpAddr = host.parse().map_err(|_| Refusal::new("address", format!("{host:?} is not an IP address")))?;
    Ok(SocketAddr::new(ip, port))
}

/// Where a listener listens, by UDP for QUIC.
pub(super) fn listener(address: core::Address, quic: bool) -> Decoded<Address> {
    match address.address {
        Some(Kind::SocketAddress(mut address)) => {
            let udp = address.protocol() == core::socket_address::Protocol::Udp;
            if udp != quic {
                return Err(Refusal::new("socket_address.protocol", "UDP is for QUIC, and QUIC is by UDP"));
            }
            address.protocol = 0;
            Ok(Address::Socket(socket(address).at("socket_address")?))
        }
        Some(_) if quic => Err(Refusal::new("", "QUIC needs a socket address")),
        Some(Kind::Pipe(pipe)) => Ok(Address::Pipe(pipe.path.into(), (pipe.mode != 0).then_some(pipe.mode))),
        Some(Kind::EnvoyInternalAddress(_)) => Ok(Address::Internal),
        None => Err(Refusal::new("", "no address")),
    }
}

/// Where an endpoint is.
pub(super) fn endpoint(address: core::Address) -> Decoded<EndpointAddress> {
    match address.address {
        Some(Kind::SocketAddress(address)) => {
            let (host, port) = host_and_port(address).at("socket_address")?;
            Ok(match host.parse::<IpAddr>() {
                Ok(ip) => EndpointAddress::Socket(SocketAddr::new(ip, port)),
                Err(_) => EndpointAddress::Name(host.into(), port),
            })
        }
        Some(Kind::Pipe(pipe)) => Ok(EndpointAddress::Pipe(pipe.path.into())),
        Some(Kind::EnvoyInternalAddress(internal)) => match internal.address_name_specifier {
            Some(AddressNameSpecifier::ServerListenerName(name)) => {
                Ok(EndpointAddress::Internal(name.into(), internal.endpoint_id.into()))
            }
            None => Err(Refusal::new("envoy_internal_address", "no listener named")),
        },
        None => Err(Refusal::new("", "no address")),
    }
}

/// Ranges of addresses.
pub(super) fn ranges(list: Vec<core::CidrRange>, field: &str) -> Decoded<Box<[Cidr]>> {
    list.into_iter().enumerate().map(|(at, range)| one_range(range).nth(field, at)).collect()
}

pub(super) fn one_range(range: core::CidrRange) -> Result<Cidr, String> {
    let ip: IpAddr =
        range.address_prefix.parse().map_err(|_| format!("{:?} is not an IP address", range.address_prefix))?;
    let length = u8::try_from(u32_or(range.prefix_len, 0)).map_err(|_| "not a prefix length".to_owned())?;
    // Envoy cuts bits behind the prefix off, and a length that is too long to the whole address.
    let most = if ip.is_ipv4() { 32 } else { 128 };
    IpNet::new(ip, length.min(most)).map(|net| net.trunc()).map_err(|error| error.to_string())
}
