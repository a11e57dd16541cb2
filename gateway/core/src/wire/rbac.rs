//! Role-based rules. Claims of tokens are never there, since no filter of ours checks tokens: conditions on them hold as Envoy's do when
//! the value is missing.

use super::{
    Refusal, address,
    any::{At, Decoded, known, refuse, some, type_name, unpack},
    matcher, metadata,
};
use crate::{
    config::{AccessAction, AccessPolicy, AccessRules, Condition, Rules, StringMatcher},
    route::template,
};
use prost::Name as _;
use std::collections::HashMap;
use tombolo_controlplane_api::xds::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        rbac::v3::{
            self as pb, MetadataSource,
            permission::{self, Rule},
            principal::{self, Identifier},
            rbac::Action,
        },
    },
    extensions::{
        filters::{http::rbac::v3 as http, network::rbac::v3 as network},
        path::r#match::uri_template::v3::UriTemplateMatchConfig,
    },
    r#type::matcher::v3::{PathMatcher, path_matcher},
};

/// Conditions nested deeper are refused.
const DEEPEST: u32 = 32;

pub(super) fn of_http(message: http::Rbac) -> Decoded<AccessRules> {
    let http::Rbac {
        rules: own,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = message;
    refuse!(matcher, shadow_matcher);
    let _ = (rules_stat_prefix, shadow_rules_stat_prefix, track_per_rule_stats);
    both(own, shadow_rules)
}

pub(super) fn of_network(message: network::Rbac) -> Decoded<AccessRules> {
    let network::Rbac {
        rules: own,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = message;
    refuse!(matcher, shadow_matcher, delay_deny);
    // A connection is judged once: nothing that is asked for changes while it lives.
    let _ = (shadow_rules_stat_prefix, stat_prefix, enforcement_type);
    both(own, shadow_rules)
}

fn both(own: Option<pb::Rbac>, shadow: Option<pb::Rbac>) -> Decoded<AccessRules> {
    shadow.map(rules).transpose().at("shadow_rules")?;
    Ok(AccessRules { rules: own.map(rules).transpose().at("rules")? })
}

fn rules(message: pb::Rbac) -> Decoded<Rules> {
    let action = match known(message.action).at("action")? {
        Action::Allow => AccessAction::Allow,
        Action::Deny => AccessAction::Deny,
        Action::Log => AccessAction::Log,
    };
    let pb::Rbac { action: _, policies, audit_logging_options } = message;
    if audit_logging_options.is_some_and(|options| !options.logger_configs.is_empty()) {
        return Err(Refusal::unsupported("audit_logging_options.logger_configs"));
    }
    let mut policies = all_policies(policies)?;
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Rules { action, policies: policies.into() })
}

fn all_policies(policies: HashMap<String, pb::Policy>) -> Decoded<Vec<AccessPolicy>> {
    let one = |(name, message): (String, pb::Policy)| {
        let pb::Policy { permissions, principals, condition, checked_condition, cel_config } = message;
        let place = format!("policies[{name}]");
        let read = || {
            refuse!(condition, checked_condition, cel_config);
            some(&permissions).at("permissions")?;
            some(&principals).at("principals")?;
            let of = permissions.into_iter().enumerate().map(|(at, p)| permission(p, 0).nth("permissions", at));
            let by = principals.into_iter().enumerate().map(|(at, p)| principal(p, 0).nth("principals", at));
            Ok(AccessPolicy {
                name: name.into(),
                permissions: of.collect::<Decoded<_>>()?,
                principals: by.collect::<Decoded<_>>()?,
            })
        };
        read().at(&place)
    };
    policies.into_iter().map(one).collect()
}

fn deeper(depth: u32) -> Decoded<u32> {
    if depth < DEEPEST { Ok(depth + 1) } else { Err(Refusal::new("", "nested too deep")) }
}

fn permissions(set: permission::Set, depth: u32) -> Decoded<Box<[Condition]>> {
    some(&set.rules).at("rules")?;
    set.rules.into_iter().enumerate().map(|(at, one)| permission(one, depth).nth("rules", at)).collect()
}

fn permission(message: pb::Permission, depth: u32) -> Decoded<Condition> {
    let depth = deeper(depth)?;
    Ok(match message.rule {
        Some(Rule::AndRules(set)) => Condition::All(permissions(set, depth).at("and_rules")?),
        Some(Rule::OrRules(set)) => Condition::One(permissions(set, depth).at("or_rules")?),
        Some(Rule::NotRule(one)) => Condition::Not(Box::new(permission(*one, depth).at("not_rule")?)),
        Some(Rule::Any(any)) => Condition::Is(any),
        Some(Rule::Header(header)) => Condition::Header(matcher::header(header).at("header")?),
        Some(Rule::UrlPath(wanted)) => Condition::Path(path(wanted).at("url_path")?),
        Some(Rule::DestinationIp(range)) => Condition::DestinationIp(address::one_range(range).at("destination_ip")?),
        Some(Rule::DestinationPort(port)) => {
            let port = u32::from(super::any::port(port).at("destination_port")?);
            Condition::DestinationPort(port, port + 1)
        }
        Some(Rule::DestinationPortRange(range)) => match (u32::try_from(range.start), u32::try_from(range.end)) {
            (Ok(start), Ok(end)) if start < end && end <= 65_536 => Condition::DestinationPort(start, end),
            _ => return Err(Refusal::new("destination_port_range", "not a range of ports")),
        },
        Some(Rule::RequestedServerName(name)) => {
            Condition::ServerName(matcher::string(name).at("requested_server_name")?)
        }
        Some(Rule::Metadata(metadata)) => Condition::Metadata(Box::new(metadata::condition(metadata).at("metadata")?)),
        Some(Rule::SourcedMetadata(sourced)) => sourced_metadata(sourced).at("sourced_metadata")?,
        Some(Rule::UriTemplate(config)) => uri_template(config).at("uri_template")?,
        Some(Rule::Matcher(config)) => return Err(Refusal::unsupported(format!("matcher.{}", config.name))),
        None => return Err(Refusal::new("rule", "missing")),
    })
}

fn principals(set: principal::Set, depth: u32) -> Decoded<Box<[Condition]>> {
    some(&set.ids).at("ids")?;
    set.ids.into_iter().enumerate().map(|(at, one)| principal(one, depth).nth("ids", at)).collect()
}

fn principal(message: pb::Principal, depth: u32) -> Decoded<Condition> {
    let depth = deeper(depth)?;
    Ok(match message.identifier {
        Some(Identifier::AndIds(set)) => Condition::All(principals(set, depth).at("and_ids")?),
        Some(Identifier::OrIds(set)) => Condition::One(principals(set, depth).at("or_ids")?),
        Some(Identifier::NotId(one)) => Condition::Not(Box::new(principal(*one, depth).at("not_id")?)),
        Some(Identifier::Any(any)) => Condition::Is(any),
        Some(Identifier::Authenticated(by)) => {
            let name = by.principal_name.map(matcher::string).transpose();
            Condition::Authenticated(name.at("authenticated.principal_name")?)
        }
        Some(Identifier::SourceIp(range)) => Condition::SourceIp(address::one_range(range).at("source_ip")?),
        Some(Identifier::DirectRemoteIp(range)) => {
            Condition::DirectRemoteIp(address::one_range(range).at("direct_remote_ip")?)
        }
        Some(Identifier::RemoteIp(range)) => Condition::RemoteIp(address::one_range(range).at("remote_ip")?),
        Some(Identifier::Header(header)) => Condition::Header(matcher::header(header).at("header")?),
        Some(Identifier::UrlPath(wanted)) => Condition::Path(path(wanted).at("url_path")?),
        Some(Identifier::Metadata(metadata)) => {
            Condition::Metadata(Box::new(metadata::condition(metadata).at("metadata")?))
        }
        Some(Identifier::SourcedMetadata(sourced)) => sourced_metadata(sourced).at("sourced_metadata")?,
        Some(Identifier::FilterState(_)) => return Err(Refusal::unsupported("filter_state")),
        Some(Identifier::Custom(config)) => return Err(Refusal::unsupported(format!("custom.{}", config.name))),
        None => return Err(Refusal::new("identifier", "missing")),
    })
}

fn path(wanted: PathMatcher) -> Decoded<StringMatcher> {
    match wanted.rule {
        Some(path_matcher::Rule::Path(wanted)) => matcher::string(wanted).at("path"),
        None => Err(Refusal::new("rule", "missing")),
    }
}

fn sourced_metadata(sourced: pb::SourcedMetadata) -> Decoded<Condition> {
    match sourced.metadata_source() {
        MetadataSource::Dynamic => {
            let matcher = sourced.metadata_matcher.ok_or_else(|| Refusal::new("metadata_matcher", "missing"))?;
            Ok(Condition::Metadata(Box::new(metadata::condition(matcher).at("metadata_matcher")?)))
        }
        MetadataSource::Route => Err(Refusal::unsupported("metadata_source ROUTE")),
    }
}

fn uri_template(config: TypedExtensionConfig) -> Decoded<Condition> {
    let config = config.typed_config.ok_or_else(|| Refusal::new("typed_config", "missing"))?;
    if type_name(&config) != UriTemplateMatchConfig::full_name() {
        return Err(Refusal::unsupported(type_name(&config)));
    }
    let config: UriTemplateMatchConfig = unpack(&config).at("typed_config")?;
    Ok(Condition::Template(template::parse(&config.path_template).at("path_template")?.pattern))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Metadata;
    use tombolo_controlplane_api::xds::{
        envoy::r#type::matcher::v3::{
            MetadataMatcher, StringMatcher as Text, ValueMatcher,
            metadata_matcher::{PathSegment, path_segment::Segment},
            string_matcher::MatchPattern,
            value_matcher::MatchPattern as Pattern,
        },
        google::api::expr::v1alpha1::Expr,
    };

    fn refused(policy: pb::Policy) -> String {
        let rules = pb::Rbac { policies: [("p".to_owned(), policy)].into(), ..Default::default() };
        of_http(http::Rbac { rules: Some(rules), ..Default::default() }).unwrap_err().to_string()
    }

    #[test]
    fn policies_are_read() {
        let name = Text { match_pattern: Some(MatchPattern::Suffix("/ns/a/sa/b".into())), ..Default::default() };
        let who = Identifier::Authenticated(principal::Authenticated { principal_name: Some(name) });
        let claim = MetadataMatcher {
            filter: "istio_authn".into(),
            path: vec![PathSegment { segment: Some(Segment::Key("claim".into())) }],
            value: Some(ValueMatcher { match_pattern: Some(Pattern::PresentMatch(true)) }),
            invert: false,
        };
        let claim = Identifier::Metadata(claim);
        let all = principal::Set {
            ids: [who, claim].into_iter().map(|one| pb::Principal { identifier: Some(one) }).collect(),
        };
        let policy = pb::Policy {
            permissions: vec![pb::Permission { rule: Some(Rule::DestinationPort(80)) }],
            principals: vec![pb::Principal { identifier: Some(Identifier::AndIds(all)) }],
            ..Default::default()
        };
        let rules = pb::Rbac { action: 1, policies: [("p".to_owned(), policy)].into(), ..Default::default() };
        let read = of_network(network::Rbac { rules: Some(rules), ..Default::default() }).unwrap().rules.unwrap();
        assert_eq!(
            (read.action, &*read.policies[0].permissions),
            (AccessAction::Deny, &[Condition::DestinationPort(80, 81)][..])
        );
        let Condition::All(all) = &read.policies[0].principals[0] else { panic!("{read:?}") };
        let Condition::Metadata(claim) = &all[1] else { panic!("{all:?}") };
        assert!(!claim.fits(&Metadata::default()), "a claim that nobody checked is missing");
    }

    #[test]
    fn what_cannot_be_judged_is_refused_by_name() {
        let any = vec![pb::Permission { rule: Some(Rule::Any(true)) }];
        let condition = pb::Policy { condition: Some(Expr::default()), ..Default::default() };
        assert_eq!(refused(condition), ": rules.policies[p].condition: not supported");
        let state = pb::Principal { identifier: Some(Identifier::FilterState(Default::default())) };
        let state = pb::Policy { permissions: any.clone(), principals: vec![state], ..Default::default() };
        assert_eq!(refused(state), ": rules.policies[p].principals[0].filter_state: not supported");
    }
    #[test]
    fn what_says_nothing_is_refused() {
        let any = vec![pb::Permission { rule: Some(Rule::Any(true)) }];
        assert_eq!(refused(pb::Policy::default()), ": rules.policies[p].permissions: empty");
        let nobody = pb::Policy { permissions: any, ..Default::default() };
        assert_eq!(refused(nobody), ": rules.policies[p].principals: empty");
        let none = pb::Permission { rule: Some(Rule::AndRules(permission::Set::default())) };
        let everybody = vec![pb::Principal { identifier: Some(Identifier::Any(true)) }];
        let none = pb::Policy { permissions: vec![none], principals: everybody, ..Default::default() };
        assert_eq!(refused(none), ": rules.policies[p].permissions[0].and_rules.rules: empty");
        let rules = http::Rbac { rules: Some(pb::Rbac { action: 99, ..Default::default() }), ..Default::default() };
        assert_eq!(of_http(rules).unwrap_err().to_string(), ": rules.action: 99 is not known");
    }
}
