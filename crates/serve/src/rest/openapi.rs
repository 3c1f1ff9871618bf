//! The `OpenAPI` description of all routes, generated from their types.

#![allow(clippy::unused_async, reason = "axum handlers must be async")]

use axum::Json;
use axum::response::IntoResponse;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::types::CommonErrors;
use super::{explain, health, infer, page, predict, repository, samples, server_info};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rgby",
        description = "Predicts the compartments of a cell that contain a protein, from \
                       multi-channel fluorescence images. Supports the Open Inference Protocol v2 \
                       with the extensions for binary tensors and the model repository, and image \
                       uploads."
    ),
    paths(
        health::server, health::live, health::ready, health::model, health::model_version,
        health::model_ready, health::version_ready, health::metrics, description,
        infer::infer, infer::infer_version, predict::predict,
        explain::explain, server_info::server_info, samples::sample, page::index, page::asset,
        repository::index, repository::load, repository::unload,
    ),
    security((), ("bearer" = []), ("key" = [])),
    modifiers(&SecuritySchemes, &HeaderParameters),
)]
struct ApiDescription;

/// Return this description
#[utoipa::path(
    get, path = "/openapi.json", tag = "server", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Value), CommonErrors),
)]
pub(super) async fn description() -> impl IntoResponse {
    Json(openapi())
}

/// Adds the two ways to send an API key.
struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let key = ApiKey::Header(ApiKeyValue::new("x-api-key"));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
    }
}

/// Pattern of the header `timeout`. The server accepts more forms.
const TIMEOUT_PATTERN: &str = r"^([0-9]{1,9}(\.[0-9]{1,9})?|[0-9]{1,9}(ms|s|m))$";

/// Removes `null` from the types of optional headers: a header may be missing, but never `null`.
struct HeaderParameters;

impl Modify for HeaderParameters {
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
                    let is_timeout = parameter.name == "timeout";
                    object.pattern = is_timeout.then(|| TIMEOUT_PATTERN.to_owned());
                }
            }
        }
    }
}

/// Returns the description, `OpenAPI` 3.1.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    ApiDescription::openapi()
}
