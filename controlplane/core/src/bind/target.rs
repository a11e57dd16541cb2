//! Where a destination of a rule leads: service, port and subset.

use super::View;
use crate::{intent::Target, stage::ServiceHead};
use std::{fmt, sync::Arc};
use tombolo_federation_model::Host;

/// A destination that exists.
#[derive(Debug, Clone)]
pub struct Located<'w> {
    /// The service.
    pub service: &'w Arc<ServiceHead>,
    /// One of its ports.
    pub port: u16,
}

/// Why a destination leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLocated {
    /// No such service, or it is not visible from here.
    Host(Host),
    /// The service has no such port.
    Port(Host, u16),
    /// The rule names no port and the service has several.
    Ambiguous(Host),
}

impl fmt::Display for NotLocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => {
                write!(f, "there is no service {host}, or it is not visible from here; requests that match get 503")
            }
            Self::Port(host, port) => write!(f, "service {host} has no port {port}; requests that match get 503"),
            Self::Ambiguous(host) => write!(f, "service {host} has several ports; name one in destination.port.number"),
        }
    }
}

impl<'w> View<'_, 'w> {
    /// Finds a destination. Without a port in the rule it is the port for which the request came if the service has
    /// that, else its only port.
    ///
    /// # Errors
    /// When service or port do not exist.
    pub fn locate(&self, target: &Target, arriving_at: Option<u16>) -> Result<Located<'w>, NotLocated> {
        let service = self.service(&target.host).ok_or_else(|| NotLocated::Host(target.host.clone()))?;
        let service = self.follow_alias(service);
        let port = match (target.port, arriving_at, service.ports.as_slice()) {
            (Some(port), _, _) if service.port(port).is_some() => port,
            (Some(port), _, _) => return Err(NotLocated::Port(target.host.clone(), port)),
            (None, Some(port), _) if service.port(port).is_some() => port,
            (None, _, [only]) => only.number,
            (None, _, _) => return Err(NotLocated::Ambiguous(target.host.clone())),
        };
        Ok(Located { service, port })
    }

    /// The service that an alias stands for, as long as that is one of the mesh. A chain longer than four, or a loop, is
    /// cut there.
    #[must_use]
    pub fn follow_alias(&self, service: &'w Arc<ServiceHead>) -> &'w Arc<ServiceHead> {
        let mut here = service;
        for _ in 0..4 {
            match here.alias_of.as_ref().and_then(|host| self.service(host)) {
                Some(next) => here = next,
                None => break,
            }
        }
        here
    }
}
