//! The names that this server answers to, as protection from DNS rebinding: another site's name may resolve to this
//! server, and its visitors' browsers then send that name as `Host` and `Origin`. So both must be known names. Pure.
//!
//! An IP address is accepted as `Host`, because a browser sends it only if the URL contains it. So health checks by address
//! need no setting.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::{
    extract::Request,
    http::{HeaderName, header},
};

/// Answered for any name: an orchestrator's check may use any, and they reveal nothing.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];
const LOCALHOST: &str = "localhost";
/// Accepts any `Host`, for a server behind a proxy that checks it.
const ANY: &str = "*";

/// The parsed setting `http.hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    is_any: bool,
    names: Vec<Authority>,
}

/// `name` or `name:port`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    name: String,
    port: Option<u16>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRefusal {
    /// Its `Host` is not a known name.
    Host,
    /// It changes something, and its `Origin` is another site.
    Origin,
}

impl Hosts {
    /// Parses a comma-separated list of `host` and `host:port`; `*` accepts any.
    ///
    /// # Errors
    /// The first entry that is not a host name.
    pub fn read(setting: &str) -> Result<Self, String> {
        let mut hosts = Self::default();
        let entries = setting.split(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            if entry == ANY {
                hosts.is_any = true;
            } else {
                let name = Authority::read(entry).ok_or_else(|| entry.to_owned())?;
                hosts.names.push(name);
            }
        }
        Ok(hosts)
    }

    /// # Errors
    /// [`HostRefusal`] if the request is not for this server, or comes from another site's page.
    pub fn check(&self, request: &Request) -> Result<(), HostRefusal> {
        let target = request.uri().authority().map(|it| Some(it.as_str()));
        let mut asked = texts(request, header::HOST).chain(target);
        let is_ours = |host: Option<&str>| host.is_some_and(|host| self.is_ours(host));
        if !HEALTH.contains(&request.uri().path()) && !asked.all(is_ours) {
            return Err(HostRefusal::Host);
        }
        let mut origins = texts(request, header::ORIGIN);
        let is_own = |origin: Option<&str>| origin.is_some_and(|it| self.is_own_page(it, request));
        if request.method().is_safe() || origins.all(is_own) {
            Ok(())
        } else {
            Err(HostRefusal::Origin)
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        self.is_any || Authority::read(host).is_some_and(|host| host.is_local() || self.has(&host))
    }

    /// Whether the origin is this server, under the request's `Host` or a name of the settings: a proxy may have replaced
    /// the `Host` that the browser sent.
    fn is_own_page(&self, origin: &str, request: &Request) -> bool {
        let site = origin.split_once("://").map(|(_, site)| site);
        let Some(site) = site.and_then(Authority::read) else {
            return false;
        };
        let host = texts(request, header::HOST).next().flatten();
        let host = host.and_then(Authority::read);
        self.has(&site) || host.is_some_and(|host| host == site)
    }

    fn has(&self, wanted: &Authority) -> bool {
        let is_it = |it: &Authority| {
            it.name == wanted.name && (it.port.is_none() || it.port == wanted.port)
        };
        self.names.iter().any(is_it)
    }
}

impl Authority {
    fn read(text: &str) -> Option<Self> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_in_name = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
        let is_name = !name.is_empty() && name.chars().all(is_in_name);
        (is_name || address_v6(&name).is_some()).then_some(Self { name, port })
    }

    /// Names that resolve to no other site.
    fn is_local(&self) -> bool {
        self.name == LOCALHOST
            || self.name.parse::<Ipv4Addr>().is_ok()
            || address_v6(&self.name).is_some()
    }
}

fn address_v6(name: &str) -> Option<Ipv6Addr> {
    let inside = name.strip_prefix('[')?.strip_suffix(']')?;
    inside.parse().ok()
}

/// Each value of a header; `None` for one that is not text.
fn texts(request: &Request, name: HeaderName) -> impl Iterator<Item = Option<&str>> {
    let values = request.headers().get_all(name).into_iter();
    values.map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn check(setting: &str, host: &str, origin: Option<&str>) -> Result<(), HostRefusal> {
        let mut request = Request::post("/event").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let request = request.body(Body::empty()).unwrap();
        Hosts::read(setting).unwrap().check(&request)
    }

    #[test]
    fn addresses_and_localhost_are_known_and_other_names_need_the_setting() {
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "10.1.2.3:8080",
            "[::1]:8080",
            "[::1]",
            "localhost:8080",
            "LOCALHOST",
            "localhost.",
        ] {
            assert_eq!(check("", host, None), Ok(()), "{host}");
        }
        for host in [
            "rebound.example:8080",
            "rebound.example",
            "127.0.0.1.rebound.example",
            "localhost.rebound.example",
            "127.0.0.1@rebound.example",
            "127.0.0.1:8080:9",
            "0x7f.1",
            "[::1",
            "",
        ] {
            assert_eq!(check("", host, None), Err(HostRefusal::Host), "{host:?}");
        }
        let told = "tickets.example, door:8080";
        for host in ["tickets.example", "Tickets.Example:443", "door:8080"] {
            assert_eq!(check(told, host, None), Ok(()), "{host}");
        }
        for host in ["door", "door:8081", "a.tickets.example"] {
            assert_eq!(check(told, host, None), Err(HostRefusal::Host), "{host}");
        }
        assert_eq!(check("*", "rebound.example", None), Ok(()));
    }

    #[test]
    fn an_origin_is_accepted_if_it_is_the_host_or_a_name_of_the_setting() {
        for (setting, host, origin) in [
            ("", "localhost:8080", "http://localhost:8080"),
            (
                "tickets.example",
                "tickets.example",
                "https://tickets.example",
            ),
            // A proxy that replaces the Host.
            (
                "tickets.example",
                "127.0.0.1:8080",
                "https://tickets.example",
            ),
            (
                "tickets.example,boxoffice",
                "boxoffice",
                "https://tickets.example",
            ),
        ] {
            assert_eq!(check(setting, host, Some(origin)), Ok(()), "{origin}");
        }
        for (setting, host, origin) in [
            ("", "localhost:8080", "http://localhost:3000"),
            ("", "127.0.0.1:8080", "http://203.0.113.9"),
            ("", "127.0.0.1:8080", "null"),
            ("", "127.0.0.1:8080", ""),
            ("*", "127.0.0.1:8080", "https://elsewhere.example"),
            (
                "tickets.example",
                "tickets.example",
                "https://tickets.example.elsewhere.example",
            ),
        ] {
            let refused = check(setting, host, Some(origin));
            assert_eq!(refused, Err(HostRefusal::Origin), "{origin}");
        }
    }

    #[test]
    fn a_request_with_two_hosts_is_refused_if_one_is_unknown() {
        let request = Request::get("/event")
            .header(header::HOST, "localhost")
            .header(header::HOST, "rebound.example");
        let request = request.body(Body::empty()).unwrap();
        assert_eq!(Hosts::default().check(&request), Err(HostRefusal::Host));
        let request =
            Request::get("http://rebound.example/event").header(header::HOST, "localhost");
        let request = request.body(Body::empty()).unwrap();
        assert_eq!(Hosts::default().check(&request), Err(HostRefusal::Host));
    }

    #[test]
    fn health_checks_are_answered_for_any_host() {
        for path in HEALTH {
            let request = Request::get(path).header(header::HOST, "boxoffice.internal");
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(Hosts::default().check(&request), Ok(()), "{path}");
        }
    }

    #[test]
    fn the_error_about_an_invalid_entry_names_it() {
        for setting in [
            "https://tickets.example",
            "a b",
            "door:many",
            "a/b",
            "*.example",
        ] {
            let refused = Hosts::read(&format!("known.example,{setting}"));
            assert_eq!(refused, Err(setting.to_owned()));
        }
        assert_eq!(Hosts::read(" , "), Ok(Hosts::default()));
    }
}
