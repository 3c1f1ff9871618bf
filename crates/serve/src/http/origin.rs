//! Which web pages may use the server: its own. A browser carries requests of any page to any
//! address, that of this machine included, and says in their heads whose they are. Programs say
//! nothing of the kind and are let through.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::ServeError;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what somebody else's page makes a browser send.
///
/// `names` are those by which a server may be called that only this machine reaches, beside
/// addresses and `localhost`. Without that check, a page whose name is made to resolve to this
/// machine, once it is loaded, would count as the server's own. `None`: any name.
///
/// # Errors
///
/// [`ServeError::Forbidden`] if so.
pub(super) fn check(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    names: Option<&[String]>,
) -> Result<(), ServeError> {
    let site = headers.get(SITE).map(HeaderValue::as_bytes);
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    if site.is_none() && origin.is_none() {
        return Ok(());
    }
    let host = host(uri, headers);
    if let Some(names) = names {
        check_name(host.as_ref(), names)?;
    }
    let own = match (site, origin) {
        _ if method.is_safe() => true,
        (Some(site), _) => matches!(site, b"same-origin" | b"none"),
        (None, origin) => host.is_some_and(|host| is_of(origin.unwrap_or_default(), &host)),
    };
    if own {
        return Ok(());
    }
    Err(ServeError::Forbidden(
        "a web page of another origin may not use this server; open the server's own page at `/`, \
         or send the request from a program"
            .into(),
    ))
}

/// How the client calls the server.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    // HTTP/2 has it in place of the path's beginning.
    let of_uri = uri.authority().cloned();
    of_uri.or_else(|| headers.get(header::HOST)?.to_str().ok()?.parse().ok())
}

fn check_name(host: Option<&Authority>, names: &[String]) -> Result<(), ServeError> {
    let host = host.map_or("", Authority::host);
    let lower = host.to_ascii_lowercase();
    let bare = lower.trim_start_matches('[').trim_end_matches(']');
    let known = bare.parse::<IpAddr>().is_ok()
        || lower == "localhost"
        || lower.ends_with(".localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(&lower));
    if known {
        return Ok(());
    }
    let shown: String = lower.chars().take(64).collect();
    Err(ServeError::Forbidden(format!(
        "this server listens to its own machine only and does not know itself as `{shown}`; open \
         it as http://localhost:PORT, or start it with --host-name {shown}"
    )))
}

/// Whether an origin, `scheme://authority`, is that host.
fn is_of(origin: &[u8], host: &Authority) -> bool {
    let origin = str::from_utf8(origin).ok();
    let authority = origin.and_then(|origin| origin.split_once("://"));
    authority.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, headers: &[(&str, &str)], names: Option<&[String]>) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        let headers: HeaderMap = headers.collect();
        check(method, &Uri::from_static("/v1/predict"), &headers, names).is_ok()
    }

    #[test]
    fn only_its_own_page_may_post() {
        let host = ("host", "127.0.0.1:8000");
        for (header, wanted) in [
            (("accept", "*/*"), true),
            (("sec-fetch-site", "same-origin"), true),
            (("sec-fetch-site", "none"), true),
            (("sec-fetch-site", "same-site"), false),
            (("sec-fetch-site", "cross-site"), false),
            (("origin", "http://127.0.0.1:8000"), true),
            (("origin", "http://127.0.0.1:8001"), false),
            (("origin", "http://evil.example"), false),
            (("origin", "null"), false),
        ] {
            assert_eq!(
                asked(&Method::POST, &[host, header], None),
                wanted,
                "{header:?}"
            );
            assert!(asked(&Method::GET, &[host, header], None), "{header:?}");
        }
        // What the browser says itself counts for more than what a proxy may have changed.
        let behind = [
            ("host", "inside:80"),
            ("origin", "https://lab.example"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(asked(&Method::POST, &behind, None));
    }

    #[test]
    fn a_local_server_answers_browsers_by_its_own_names_only() {
        let names = ["cells.lab".to_owned()];
        for (host, wanted) in [
            ("localhost:8000", true),
            ("LOCALHOST", true),
            ("rgby.localhost:8000", true),
            ("127.0.0.1:8000", true),
            ("[::1]:8000", true),
            ("cells.lab", true),
            ("evil.example:8000", false),
            ("127.0.0.1.evil.example", false),
            ("notlocalhost", false),
        ] {
            let browser = [("host", host), ("sec-fetch-site", "same-origin")];
            for method in [Method::GET, Method::POST] {
                assert_eq!(asked(&method, &browser, Some(&names)), wanted, "{host}");
                assert!(asked(&method, &[("host", host)], Some(&names)), "{host}");
            }
        }
    }
}
