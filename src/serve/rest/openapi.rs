//! The description of all routes, made from their types.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{about, explain, health, infer, page, predict, repository};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rgby",
        description = "Which compartments of a cell a protein is in, by four-channel fluorescence \
                       images. The Open Inference Protocol v2 with the extensions for binary \
                       tensors and the model repository, and uploads of images."
    ),
    paths(
        health::server, health::live, health::ready, health::model, health::model_version,
        health::model_ready, health::version_ready, health::metrics, health::description,
        infer::infer, infer::infer_version, predict::predict,
        explain::explain, about::about_server, about::draw, page::index, page::part,
        repository::index, repository::load, repository::unload,
    ),
    security((), ("bearer" = []), ("key" = [])),
    modifiers(&Keys),
)]
struct Description;

/// The two ways to show a key.
struct Keys;

impl Modify for Keys {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let key = ApiKey::Header(ApiKeyValue::new("x-api-key"));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
    }
}

/// The description, `OpenAPI` 3.1.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
