//! The web page. Its files are part of the program.

#![allow(clippy::unused_async, reason = "axum handlers must be async")]

use std::sync::LazyLock;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::errors::{HttpError, path_error};
use super::types::PageErrors;
use crate::ServeError;

/// Path of the page's files; the page itself is at `/`.
pub(super) const FOLDER: &str = "/page/";

/// The page may load only files of this server, and no page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

struct PageFile {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const INDEX: PageFile = PageFile {
    name: "index.html",
    content_type: "text/html; charset=utf-8",
    text: include_str!("../page/index.html"),
};

const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [PageFile; 8] = [
    file(
        "style.css",
        "text/css; charset=utf-8",
        include_str!("../page/style.css"),
    ),
    file(
        "icon.svg",
        "image/svg+xml",
        include_str!("../page/icon.svg"),
    ),
    file("app.js", SCRIPT, include_str!("../page/app.js")),
    file("api.js", SCRIPT, include_str!("../page/api.js")),
    file("files.js", SCRIPT, include_str!("../page/files.js")),
    file("picture.js", SCRIPT, include_str!("../page/picture.js")),
    file("results.js", SCRIPT, include_str!("../page/results.js")),
    file("dom.js", SCRIPT, include_str!("../page/dom.js")),
];

const fn file(name: &'static str, content_type: &'static str, text: &'static str) -> PageFile {
    PageFile {
        name,
        content_type,
        text,
    }
}

/// Return the web page
#[utoipa::path(
    get, path = "/", tag = "page", security(()),
    responses((status = 200, description = "HTML", body = String, content_type = "text/html"), PageErrors),
)]
pub(super) async fn index(headers: HeaderMap) -> Response {
    respond(&INDEX, &headers)
}

/// Return a file of the web page
#[utoipa::path(
    get, path = "/page/{file}", tag = "page", security(()),
    params(("file" = String, Path, description = "File name")),
    responses((status = 200, description = "Style, script or icon", body = String, content_type = "text/plain"), PageErrors),
)]
pub(super) async fn asset(
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let Path(name) = path.map_err(path_error)?;
    let found = FILES.iter().find(|file| file.name == name);
    let file = found.ok_or_else(|| ServeError::Unknown("unknown file of the page".into()))?;
    Ok(respond(file, &headers))
}

/// `ETag` of all files together, so that a browser never combines files of different versions.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for file in FILES.iter().chain([&INDEX]) {
        hash.update(file.text);
    }
    let tag = format!("\"{}\"", &hex::encode(hash.finalize())[..32]);
    HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"rgby\""))
});

fn respond(file: &PageFile, request_headers: &HeaderMap) -> Response {
    let cached = request_headers.get(header::IF_NONE_MATCH);
    let mut response = if cached == Some(&*TAG) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.text.into_response()
    };
    let fixed: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_TYPE, file.content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::ETAG, TAG.clone());
    response
}
