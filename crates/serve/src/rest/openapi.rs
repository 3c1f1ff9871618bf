//! The description of all routes, made from their types.

use utoipa::openapi::RefOr;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::{Schema, SchemaType, Type};
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
    modifiers(&Keys, &ResponseHeaders),
)]
struct ApiDescription;

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

/// A `timeout`; more is understood.
const TIME: &str = r"^([0-9]{1,9}(\.[0-9]{1,9})?|[0-9]{1,9}(ms|s|m))$";

/// Headers may be left out, which the types say by `Option`, but are never `null`.
struct ResponseHeaders;

impl Modify for ResponseHeaders {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        for item in api.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post].into_iter().flatten();
            let parameters = operations.flat_map(|operation| operation.parameters.iter_mut());
            for parameter in parameters.flatten() {
                if let ParameterIn::Header = parameter.parameter_in
                    && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
                    && let SchemaType::Array(types) = &mut object.schema_type
                {
                    types.retain(|kind| *kind != Type::Null);
                    object.pattern = (parameter.name == "timeout").then(|| TIME.to_owned());
                }
            }
        }
    }
}

/// The description, `OpenAPI` 3.1.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    ApiDescription::openapi()
}
