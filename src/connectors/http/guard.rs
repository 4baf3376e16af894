//! Which hosts and addresses `http.request` may reach. Pure: names are resolved elsewhere, and every
//! address they resolve to is asked about here.
//!
//! - [`Guard::admit`]: the scheme, and the host and port against the owner's list;
//! - [`Guard::admit_address`]: only public addresses, besides the networks the owner lists. An IPv6
//!   address that wraps an IPv4 one is judged by what it wraps.
//!
//! The networks are those of the IANA special-purpose address registries (RFC 6890).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

use crate::config::connectors as config;

/// What may be reached.
#[derive(Clone, Debug)]
pub struct Guard {
    allow: Vec<Rule>,
    networks: Vec<IpNet>,
}

/// One entry of the owner's list.
#[derive(Clone, Debug)]
struct Rule {
    host: Pattern,
    /// `None`: the default port of the scheme.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exactly(Host<String>),
    /// Every name below this one, but not the name itself.
    Below(String),
}

/// A host that may be tried: its addresses are still to be asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its name or address.
    pub host: Host<String>,
    /// Its port.
    pub port: u16,
}

/// Why something may not be reached.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Neither `http` nor `https`.
    #[error("only http and https are spoken, not {0}")]
    Scheme(String),
    /// A user or password in the address.
    #[error("a user or password in the address is refused; use a header")]
    Userinfo,
    /// Not a name that is looked up as it is written.
    #[error("{0:?} is not a host that can be checked")]
    Host(String),
    /// Not on the list.
    #[error("{0} is not on the list `http.allow` in config/connectors.yaml")]
    NotListed(Target),
    /// Not a public address.
    #[error("{address} is {what}; if it should be reached, add its network to `http.allow_networks`")]
    NotPublic {
        /// The address.
        address: IpAddr,
        /// What kind of address it is.
        what: &'static str,
    },
}

/// An entry of `http.allow` that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`http.allow`: {entry:?} is not a host; write `api.example.com`, `api.example.com:8443` or `*.example.com`"
)]
pub struct NotAHost {
    /// The entry.
    pub entry: String,
}

impl Guard {
    /// The guard that `config` describes.
    ///
    /// # Errors
    /// When an entry of the list cannot be understood.
    pub fn new(config: &config::Http) -> Result<Self, NotAHost> {
        let rule = |entry: &String| rule(entry).ok_or_else(|| NotAHost { entry: entry.clone() });
        let allow = config.allow.iter().map(rule).collect::<Result<_, _>>()?;
        Ok(Self { allow, networks: config.allow_networks.clone() })
    }

    /// Whether `url` may be tried.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, url: &Url) -> Result<Target, Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Userinfo);
        }
        let unusable = || Refusal::Host(url.host_str().unwrap_or_default().to_owned());
        let host = url.host().map(|host| host.to_owned()).ok_or_else(unusable)?;
        if matches!(&host, Host::Domain(name) if name.ends_with('.')) {
            return Err(unusable()); // the same host under a second name
        }
        let port = url.port_or_known_default().ok_or_else(unusable)?;
        let target = Target { host, port };
        let listed = self.allow.iter().any(|rule| {
            let port_fits = match rule.port {
                Some(listed) => listed == port,
                None => url.port().is_none(), // the url crate drops a scheme's default port
            };
            port_fits && rule.host.fits(&target.host)
        });
        if listed { Ok(target) } else { Err(Refusal::NotListed(target)) }
    }

    /// Whether `address` may be connected to.
    ///
    /// # Errors
    /// Why not.
    pub fn admit_address(&self, address: IpAddr) -> Result<(), Refusal> {
        let plain = address.to_canonical();
        if self.networks.iter().any(|network| network.contains(&address) || network.contains(&plain)) {
            return Ok(());
        }
        let what = match plain {
            IpAddr::V4(v4) => special_v4(v4),
            IpAddr::V6(v6) => special_v6(v6),
        };
        what.map_or(Ok(()), |what| Err(Refusal::NotPublic { address, what }))
    }
}

impl Pattern {
    fn fits(&self, host: &Host<String>) -> bool {
        match (self, host) {
            (Self::Exactly(listed), host) => listed == host,
            (Self::Below(parent), Host::Domain(name)) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            (Self::Below(_), Host::Ipv4(_) | Host::Ipv6(_)) => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `host`, `host:port`, `*.host` or `*.host:port`.
fn rule(entry: &str) -> Option<Rule> {
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            (host, Some(port.parse::<u16>().ok().filter(|port| digits && *port > 0)?))
        }
        _ => (entry, None),
    };
    let host = match host.strip_prefix("*.") {
        Some(parent) => match parse(parent)? {
            Host::Domain(parent) if parent.contains('.') => Pattern::Below(parent),
            _ => return None, // a whole top-level domain, or an address
        },
        None => Pattern::Exactly(parse(host)?),
    };
    Some(Rule { host, port })
}

/// A host as the url crate reads it in an address: lower case, punycode, one spelling per address.
fn parse(host: &str) -> Option<Host<String>> {
    let parsed = Host::parse(host).ok()?;
    let plain = |name: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        name.bytes().all(fits) && !name.starts_with('.') && !name.ends_with('.') && !name.contains("..")
    };
    match &parsed {
        Host::Domain(name) if !plain(name) => None,
        _ => Some(parsed),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const SPECIAL_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "an unspecified address"),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(100, 64, 0, 0, 10), "a carrier's private address"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 0, 0, 0, 24), "a protocol's own address"),
    (v4(192, 0, 2, 0, 24), "a documentation address"),
    (v4(192, 88, 99, 0, 24), "a relay's address"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(198, 18, 0, 0, 15), "a benchmarking address"),
    (v4(198, 51, 100, 0, 24), "a documentation address"),
    (v4(203, 0, 113, 0, 24), "a documentation address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
];

const SPECIAL_V6: [(Ipv6Net, &str); 9] = [
    (v6(0xfc00, 0, 0, 7), "a private (unique-local) address"),
    (v6(0xfe80, 0, 0, 10), "a link-local address"),
    (v6(0xfec0, 0, 0, 10), "a private (site-local) address"),
    (v6(0xff00, 0, 0, 8), "a multicast address"),
    (v6(0x64, 0xff9b, 1, 48), "a private translator's address"),
    (v6(0x2001, 2, 0, 48), "a benchmarking address"),
    (v6(0x2001, 0, 0, 23), "a protocol's own address"),
    (v6(0x2001, 0xdb8, 0, 32), "a documentation address"),
    (v6(0x3fff, 0, 0, 20), "a documentation address"),
];

/// What an address outside the special networks must lie in: the public addresses given out so far,
/// and those under which a translator (NAT64, RFC 6052) makes public IPv4 ones reachable.
const PUBLIC_V6: [Ipv6Net; 2] = [v6(0x2000, 0, 0, 3), v6(0x64, 0xff9b, 0, 96)];

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    SPECIAL_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, what)| *what)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("an unspecified address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if let Some(what) = wrapped(address).into_iter().flatten().find_map(special_v4) {
        return Some(what);
    }
    if let Some((_, what)) = SPECIAL_V6.iter().find(|(network, _)| network.contains(&address)) {
        return Some(what);
    }
    let public = PUBLIC_V6.iter().any(|network| network.contains(&address));
    if public { None } else { Some("not a public address") }
}

/// The IPv4 addresses inside an IPv6 one: a router on the way would unwrap and deliver to them.
fn wrapped(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let s = address.segments();
    let last = join(s[6], s[7]);
    // ISATAP (RFC 5214) may stand in any network, so also in a 6to4 one
    let isatap = (s[4] & !0x0200 == 0 && s[5] == 0x5efe).then_some(last);
    match s {
        // IPv4-mapped, -compatible (RFC 4291) and -translated (RFC 7915)
        [0, 0, 0, 0, 0, 0xffff | 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => [Some(last), None],
        // NAT64 (RFC 6052)
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [Some(last), None],
        // 6to4 (RFC 3056)
        [0x2002, high, low, ..] => [Some(join(high, low)), isatap],
        // Teredo (RFC 4380): the server's address, and the client's with every bit turned over
        [0x2001, 0, high, low, ..] => [Some(join(high, low)), Some(join(!s[6], !s[7]))],
        _ => [isatap, None],
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
