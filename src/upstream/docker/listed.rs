//! What of Docker's list of containers matters here, and which of them an endpoint means.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};

use crate::config::{self, Address};

/// Labels that `docker compose` gives (compose-spec has none of them; both versions of compose do).
const SERVICE: &str = "com.docker.compose.service";
const PROJECT: &str = "com.docker.compose.project";
const ONEOFF: &str = "com.docker.compose.oneoff";

/// More addresses of one endpoint than this are not taken.
const ADDRESSES_MAX: usize = 256;

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    name: String,
    labels: HashMap<String, String>,
    /// Of the configured network, or of the first by name.
    address: Option<IpAddr>,
}

/// Those that run, without those of `docker compose run`: they serve nobody.
pub(super) fn containers(all: Vec<ContainerSummary>, settings: &config::Docker) -> Vec<Container> {
    let running = all
        .into_iter()
        .filter(|one| one.state == Some(ContainerSummaryStateEnum::RUNNING));
    running
        .filter_map(|one| {
            let labels = one.labels.unwrap_or_default();
            if labels
                .get(ONEOFF)
                .is_some_and(|value| value.eq_ignore_ascii_case("true"))
            {
                return None;
            }
            let networks = one.network_settings.and_then(|settings| settings.networks);
            let mut networks: Vec<_> = networks.into_iter().flatten().collect();
            networks.sort_by(|(a, _), (b, _)| a.cmp(b));
            let usable = networks
                .into_iter()
                .filter(|(name, _)| settings.network.as_ref().is_none_or(|wanted| wanted == name));
            let address = usable
                .filter_map(|(_, network)| {
                    let ip = |text: Option<String>| text.and_then(|text| text.parse::<IpAddr>().ok());
                    ip(network.ip_address).or_else(|| ip(network.global_ipv6_address))
                })
                .next();
            let names = one.names.unwrap_or_default();
            Some(Container {
                id: one.id?,
                name: names
                    .first()
                    .map_or("", |name| name.trim_start_matches('/'))
                    .to_owned(),
                labels,
                address,
            })
        })
        .collect()
}

/// The addresses that an endpoint means, sorted; and why there are none.
pub(super) fn of<'a>(
    containers: impl Iterator<Item = &'a Container>,
    place: &Address,
    settings: &config::Docker,
) -> (Vec<SocketAddr>, Option<String>) {
    let Address::Docker { what, port } = place else {
        return (Vec::new(), None);
    };
    let (label, value) = what.split_once('=').unwrap_or((SERVICE, what));
    let has =
        |one: &Container, label: &str, value: &str| one.labels.get(label).is_some_and(|has| has == value);
    let meant = containers.filter(|one| has(one, label, value)).filter(|one| {
        let project = settings.project.as_ref();
        project.is_none_or(|project| has(one, PROJECT, project))
    });
    let (mut addresses, mut without) = (Vec::new(), Vec::new());
    for one in meant {
        match one.address {
            Some(ip) => addresses.push(SocketAddr::new(ip, *port)),
            None => without.push(one.name.as_str()),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    let why = match (addresses.is_empty(), without.is_empty()) {
        (false, _) => None,
        (true, true) => Some(format!("no running container has the label {label}={value}")),
        (true, false) => {
            let network = settings.network.as_deref().unwrap_or("any network");
            Some(format!("{} has no address in {network}", without.join(", ")))
        }
    };
    (addresses, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

    use super::*;

    /// From an engine's answer to `GET /v1.41/containers/json`, shortened to what is read.
    const ANSWER: &str = r#"[
        {"Id":"b1","Names":["/shop-app-blue-1"],"State":"running",
         "Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"app-blue","com.docker.compose.oneoff":"False","tier":"web"},
         "NetworkSettings":{"Networks":{"zeta":{"IPAddress":"10.9.0.2"},"shop_default":{"IPAddress":"172.18.0.3"}}}},
        {"Id":"b2","Names":["/shop-app-blue-2"],"State":"running",
         "Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"app-blue","com.docker.compose.oneoff":"False","tier":"web"},
         "NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}}},
        {"Id":"r1","Names":["/shop-app-blue-run-1"],"State":"running",
         "Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"app-blue","com.docker.compose.oneoff":"True"},
         "NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.9"}}}},
        {"Id":"p1","Names":["/shop-app-blue-3"],"State":"paused",
         "Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"app-blue"},
         "NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.7"}}}},
        {"Id":"o1","Names":["/other-app-blue-1"],"State":"running",
         "Labels":{"com.docker.compose.project":"other","com.docker.compose.service":"app-blue"},
         "NetworkSettings":{"Networks":{"other_default":{"IPAddress":"","GlobalIPv6Address":"fd00::5"}}}},
        {"Id":"h1","Names":["/host"],"State":"running","Labels":{"tier":"host"},
         "NetworkSettings":{"Networks":{"host":{"IPAddress":"","GlobalIPv6Address":""}}}}
    ]"#;

    fn settings(project: Option<&str>, network: Option<&str>) -> config::Docker {
        config::Docker {
            project: project.map(str::to_owned),
            network: network.map(str::to_owned),
            ..config::Docker::default()
        }
    }

    fn found(what: &str, settings: &config::Docker) -> (Vec<String>, Option<String>) {
        let all = containers(serde_json::from_str(ANSWER).unwrap(), settings);
        let place = Address::Docker {
            what: what.to_owned(),
            port: 8000,
        };
        let (addresses, why) = of(all.iter(), &place, settings);
        (addresses.iter().map(ToString::to_string).collect(), why)
    }

    #[test]
    fn a_compose_service_is_its_running_containers() {
        let (all, why) = found("app-blue", &settings(Some("shop"), Some("shop_default")));
        assert_eq!(all, ["172.18.0.2:8000", "172.18.0.3:8000"]);
        assert_eq!(why, None);
        let (all, _) = found("app-blue", &settings(None, None));
        assert_eq!(
            all,
            ["172.18.0.2:8000", "172.18.0.3:8000", "[fd00::5]:8000"],
            "of every project"
        );
    }

    #[test]
    fn a_label_is_whoever_has_it() {
        let (all, _) = found("tier=web", &settings(None, Some("zeta")));
        assert_eq!(all, ["10.9.0.2:8000"]);
    }

    #[test]
    fn why_there_is_none_is_said() {
        let (all, why) = found("app-red", &settings(None, None));
        assert!(all.is_empty());
        assert_eq!(
            why.unwrap(),
            "no running container has the label com.docker.compose.service=app-red"
        );
        let (_, why) = found("tier=host", &settings(None, None));
        assert_eq!(why.unwrap(), "host has no address in any network");
    }
}
