use proptest::prelude::*;

use super::*;

fn guard(allow: &[&str], networks: &[&str]) -> Guard {
    let config = config::Http {
        allow: allow.iter().map(ToString::to_string).collect(),
        allow_networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        ..config::Http::default()
    };
    Guard::new(&config).unwrap()
}

fn admits(guard: &Guard, url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| guard.admit(&url).is_ok())
}

#[test]
fn only_listed_hosts_on_listed_ports_are_admitted() {
    let guard = guard(
        &["API.example.com", "b.example:8443", "*.wild.example", "bücher.example", "[2606:4700::1]:80"],
        &[],
    );
    for url in [
        "https://api.example.com/x",
        "http://API.EXAMPLE.COM:80/",
        "https://api.example.com:443/",
        "https://b.example:8443",
        "http://b.example:8443",
        "https://a.wild.example",
        "https://a.b.wild.example",
        "https://xn--bcher-kva.example",
        "https://BÜCHER.example",
        "http://[2606:4700:0::1]/",
        "https://ａｐｉ.example.com/",
    ] {
        assert!(admits(&guard, url), "{url} should be admitted");
    }
    for url in [
        "https://api.example.com:8443/",
        "http://api.example.com:443/",
        "https://b.example/",
        "https://wild.example",
        "https://evilwild.example",
        "https://.wild.example",
        "https://api.example.com.evil.example",
        "https://evil.example/api.example.com",
        "https://api.example.com@evil.example",
        "https://evil.example#@api.example.com",
        "https://evil.example\\@api.example.com",
        "https://api.example.com./",
        "https://a.wild.example./",
        "https://user@api.example.com/",
        "https://:pw@api.example.com/",
        "https://user:pw@api.example.com/",
        "ftp://api.example.com/",
        "file:///etc/passwd",
        "data:text/plain,x",
        "ws://api.example.com/",
        "https://[2606:4700::1]/",
        "http://[2606:4700::2]/",
        "http://xn--api-.example.com/",
    ] {
        assert!(!admits(&guard, url), "{url} should be refused");
    }
}

#[test]
fn every_spelling_of_an_address_is_the_address() {
    let guard = guard(&["127.0.0.1"], &[]);
    for spelling in [
        "127.0.0.1",
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.0.0.1.",
    ] {
        let url = Url::parse(&format!("http://{spelling}/")).unwrap();
        let target = guard.admit(&url).unwrap();
        assert_eq!(target.host, Host::<String>::Ipv4(Ipv4Addr::LOCALHOST), "{spelling}");
        assert!(guard.admit_address(Ipv4Addr::LOCALHOST.into()).is_err());
    }
}

#[test]
fn an_entry_that_is_not_a_host_is_refused_with_the_entry() {
    let refused = [
        "",
        "*",
        "*.",
        "*.com",
        "*.1.2.3.4",
        "a.*.example",
        "https://api.example.com",
        "api.example.com/path",
        "api.example.com:",
        "api.example.com:0",
        "api.example.com:70000",
        "api.example.com:+80",
        "user@api.example.com",
        "api.example.com.",
        "a b",
        "::1",
        ".example.com",
        "a..example",
    ];
    for entry in refused {
        let config = config::Http { allow: vec![entry.into()], ..config::Http::default() };
        assert_eq!(Guard::new(&config).unwrap_err().entry, entry);
    }
}

#[test]
fn only_public_addresses_are_admitted_besides_listed_networks() {
    let refused = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "2001:2::1",
        "2001:20::1",
        "100::1",
        "5f00::1",
        "4000::1",
        "64:ff9b:1::808:808",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::1",
        "2002:c0a8:101::1",
        "2002:808:808::200:5efe:a00:1",
        "2001:0:808:808::f5ff:fffe",
        "2001:0:a00:1::f7f7:f7f7",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:192.168.0.1",
    ];
    let closed = guard(&[], &[]);
    for address in refused {
        let address: IpAddr = address.parse().unwrap();
        assert!(closed.admit_address(address).is_err(), "{address} should be refused");
    }
    for address in [
        "8.8.8.8",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2606:4700::5efe:8.8.8.8",
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(closed.admit_address(address), Ok(()), "{address} should be admitted");
    }
    let home = guard(&[], &["10.0.0.0/8", "fd00::/8"]);
    for (address, fine) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("192.168.0.1", false),
        ("fc00::1", false),
        ("2002:a01:203::1", false),
        ("64:ff9b::10.1.2.3", false),
    ] {
        assert_eq!(home.admit_address(address.parse().unwrap()).is_ok(), fine, "{address}");
    }
}

fn private() -> impl Strategy<Value = Ipv4Addr> {
    let within = |network: Ipv4Net| {
        (u32::from(network.network())..=u32::from(network.broadcast())).prop_map(Ipv4Addr::from)
    };
    let networks: Vec<_> = SPECIAL_V4.iter().map(|(network, _)| within(*network).boxed()).collect();
    proptest::strategy::Union::new(networks)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]
    #[test]
    fn a_private_address_is_never_admitted_in_any_wrapping(inner in private(), noise in any::<[u16; 8]>()) {
        let bits = u32::from(inner);
        let (high, low) = ((bits >> 16) as u16, bits as u16);
        let n = noise;
        let wrappings = [
            [0, 0, 0, 0, 0, 0xffff, high, low],
            [0, 0, 0, 0, 0, 0, high, low],
            [0, 0, 0, 0, 0xffff, 0, high, low],
            [0x64, 0xff9b, 0, 0, 0, 0, high, low],
            [0x64, 0xff9b, 1, n[0], n[1], n[2], high, low],
            [0x2002, high, low, n[0], n[1], n[2], n[3], n[4]],
            [0x2001, 0, high, low, n[0], n[1], n[2], n[3]],
            [0x2001, 0, n[0], n[1], n[2], n[3], !high, !low],
            [n[0], n[1], n[2], n[3], 0, 0x5efe, high, low],
            [n[0], n[1], n[2], n[3], 0x200, 0x5efe, high, low],
        ];
        let guard = guard(&[], &[]);
        prop_assert!(guard.admit_address(inner.into()).is_err());
        for wrapping in wrappings {
            let [a, b, c, d, e, f, g, h] = wrapping;
            let address = IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h));
            prop_assert!(guard.admit_address(address).is_err(), "{}", address);
        }
    }

    #[test]
    fn no_input_admits_a_host_that_is_not_listed(text in "(https?://)?[a-z0-9@:/\\\\.%#?\\[\\]*-]{0,40}") {
        let guard = guard(&["api.example.com"], &[]);
        if let Ok(url) = Url::parse(&text) && let Ok(target) = guard.admit(&url) {
            prop_assert_eq!(target.host.to_string(), "api.example.com");
        }
        let _ = rule(&text);
    }
}
