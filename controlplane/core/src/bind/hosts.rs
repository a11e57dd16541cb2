//! Which patterns stand for a host.

use tombolo_federation_model::Host;

/// The host itself and every pattern that covers it, most specific first: `a.b.c`, `*.b.c`, `*.c`, `*`.
pub fn covering(host: &Host) -> impl Iterator<Item = Host> {
    let name = host.as_str().strip_prefix("*.").unwrap_or(host.as_str());
    let dots = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..]));
    let patterns = dots.chain(std::iter::once("*".to_owned())).filter_map(|text| Host::parse(&text).ok());
    let own = host.clone();
    std::iter::once(host.clone()).chain(patterns.filter(move |pattern| *pattern != own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, expect: &[&str]) {
        let got: Vec<String> = covering(&Host::parse(host).unwrap()).map(|h| h.to_string()).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn patterns_come_most_specific_first() {
        check("a.b.c", &["a.b.c", "*.b.c", "*.c", "*"]);
        check("*.b.c", &["*.b.c", "*.c", "*"]);
        check("a", &["a", "*"]);
        check("*", &["*"]);
    }
}
