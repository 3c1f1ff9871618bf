//! Cross-site request protection: only the server's own page may use it from a browser.
//!
//! A browser sends requests of any page to any address, including this machine, and names the
//! page's origin in headers. Other programs send no such headers and are accepted.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::ServeError;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Rejects browser requests of pages of other origins.
///
/// `names` are the accepted host names, in addition to IP addresses and `localhost`; `None` accepts
/// any name. The check prevents DNS rebinding: a page whose host name is later made to resolve to
/// this machine would otherwise pass as the server's own.
///
/// # Errors
///
/// [`ServeError::Forbidden`] for another origin or host name.
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

/// Returns the host that the client addressed.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    // In HTTP/2, the `:authority` pseudo-header becomes part of the URI.
    let authority = uri.authority().cloned();
    authority.or_else(|| headers.get(header::HOST)?.to_str().ok()?.parse().ok())
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
        "this server listens on a loopback address and does not accept the host name `{shown}`; \
         use http://localhost:PORT, or start the server with --host-name {shown}"
    )))
}

/// Returns whether an origin, `scheme://authority`, has this host.
fn is_of(origin: &[u8], host: &Authority) -> bool {
    let origin = str::from_utf8(origin).ok();
    let authority = origin.and_then(|origin| origin.split_once("://"));
    authority.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(method: &Method, headers: &[(&str, &str)], names: Option<&[String]>) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        let headers: HeaderMap = headers.collect();
        check(method, &Uri::from_static("/v1/predict"), &headers, names).is_ok()
    }

    #[test]
    fn only_the_own_page_may_post() {
        let host = ("host", "127.0.0.1:8000");
        for (header, expected) in [
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
                accepts(&Method::POST, &[host, header], None),
                expected,
                "{header:?}"
            );
            assert!(accepts(&Method::GET, &[host, header], None), "{header:?}");
        }
        // `sec-fetch-site` takes precedence over `host`, which a proxy may have changed.
        let behind = [
            ("host", "inside:80"),
            ("origin", "https://lab.example"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(accepts(&Method::POST, &behind, None));
    }

    #[test]
    fn a_loopback_server_accepts_browsers_only_by_known_host_names() {
        let names = ["cells.lab".to_owned()];
        for (host, expected) in [
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
                assert_eq!(accepts(&method, &browser, Some(&names)), expected, "{host}");
                assert!(accepts(&method, &[("host", host)], Some(&names)), "{host}");
            }
        }
    }
}
