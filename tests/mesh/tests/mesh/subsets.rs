//! Subsets that the caller's site defines and the server's site has never heard of.

use crate::{sound, yaml};
use tombolo_tests_mesh::{End, From, Mesh, SiteSpec};

const WEB: From<'static> = From::Pod("east/web-v1-0");

fn sites(west: &[(&str, u32)]) -> [SiteSpec; 2] {
    let east = [yaml::app("web", &[("v1", 1)]), yaml::subsets("reviews")];
    [
        SiteSpec::new("east", &east.concat()).file("split.yaml", &yaml::split("reviews", 0, 100)),
        SiteSpec::new("west", &yaml::app("reviews", west)),
    ]
}

#[test]
fn the_server_learns_what_the_caller_means() {
    let mut mesh = Mesh::of(sites(&[("v1", 1), ("v2", 1)])).build();
    sound(&mesh);
    for _ in 0..20 {
        assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v2-0");
    }
    mesh.site_mut("east").write("split.yaml", &yaml::split("reviews", 100, 0));
    mesh.settle();
    for _ in 0..20 {
        assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v1-0");
    }
}

#[test]
fn a_definition_that_changes_is_followed() {
    let mut mesh = Mesh::of(sites(&[("v1", 1), ("v2", 1), ("v3", 1)])).build();
    mesh.site_mut("east").edit("site.yaml", "{name: v2, labels: {version: v2}}", "{name: v2, labels: {version: v3}}");
    mesh.settle();
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v3-0");
    mesh.site_mut("east").edit(
        "site.yaml",
        &yaml::subsets("reviews").replace("labels: {version: v2}", "labels: {version: v3}"),
        "",
    );
    mesh.site_mut("east").remove("split.yaml");
    mesh.settle();
    sound(&mesh);
    let names =
        mesh.proxy("west/east-west").config().clusters.iter().filter(|(name, _)| name.contains("_.v2_.")).count();
    assert_eq!(names, 0, "what nobody asks for any more is not let in");
    assert_eq!(mesh.get(WEB, "http://reviews:9080/").status(), 200);
}

#[test]
fn the_servers_own_definition_wins_and_a_peer_cannot_take_it_away() {
    let [east, west] = sites(&[("v1", 1), ("v2", 1)]);
    // West calls those v2 that are v1.
    let own =
        yaml::subsets("reviews").replace("{name: v2, labels: {version: v2}}", "{name: v2, labels: {version: v1}}");
    let mut mesh = Mesh::of([east, west.file("own.yaml", &own)]).build();
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v1-0");
    mesh.site_mut("west").remove("own.yaml");
    mesh.settle();
    assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v2-0");
}

#[test]
fn an_empty_subset_fails_at_the_caller() {
    let mut mesh = Mesh::of(sites(&[("v1", 1)])).build();
    let trace = mesh.get(WEB, "http://reviews:9080/");
    assert!(matches!(&trace.end, End::Reply { status: 503, by, .. } if by == "east/web-v1-0"), "{trace:#?}");
    assert_eq!(trace.hops.len(), 1);
}

#[test]
fn a_subset_of_what_is_not_exported_opens_nothing() {
    let [east, west] = sites(&[("v1", 1), ("v2", 1)]);
    let mut mesh = Mesh::of([east, west.declared_only()]).build();
    sound(&mesh);
    assert_ne!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v2-0");
    assert_eq!(mesh.proxy("west/east-west").config().listeners.len(), 0);
}
