//! Implementation of the gRPC methods.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::infer::{call_timeout, parse, respond};
use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::repository_index_response::ModelIndex;
use super::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use super::status::status;
use crate::{ServeError, Service, metadata};

/// Handlers of the gRPC methods.
#[derive(Debug)]
pub(super) struct GrpcHandlers {
    service: Arc<Service>,
}

type GrpcResult<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for GrpcHandlers {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> GrpcResult<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> GrpcResult<ServerReadyResponse> {
        let ready = self.service.lifecycle().check_ready().is_ok();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> GrpcResult<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let repository = self.service.repository();
        let ready = self.service.lifecycle().check_ready().is_ok()
            && repository.get(&name, given(&version)).is_ok();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> GrpcResult<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: metadata::NAME.into(),
            version: metadata::VERSION.into(),
            extensions: metadata::EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> GrpcResult<ModelMetadataResponse> {
        let metadata = self.metadata(&request.into_inner()).map_err(status)?;
        Ok(Response::new(metadata))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> GrpcResult<ModelInferResponse> {
        let response = self.infer(request).await.map_err(status)?;
        Ok(Response::new(response))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> GrpcResult<RepositoryIndexResponse> {
        let entries = self.service.index(request.into_inner().ready).await;
        let entries = entries.map_err(status)?.into_iter();
        let models = entries.map(|entry| ModelIndex {
            state: entry.state().into(),
            name: entry.name,
            version: entry.version,
            reason: entry.reason,
        });
        Ok(Response::new(RepositoryIndexResponse {
            models: models.collect(),
        }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> GrpcResult<RepositoryModelLoadResponse> {
        self.service.lifecycle().check_ready().map_err(status)?;
        let request = request.into_inner();
        let parameters = request.parameters.keys().map(String::as_str);
        let loaded = self.service.load(request.model_name, parameters).await;
        loaded.map_err(status)?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> GrpcResult<RepositoryModelUnloadResponse> {
        self.service.lifecycle().check_ready().map_err(status)?;
        let unloaded = self.service.unload(request.into_inner().model_name).await;
        unloaded.map_err(status)?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}

/// Returns the version, if it is not empty.
fn given(version: &str) -> Option<&str> {
    (!version.is_empty()).then_some(version)
}

impl GrpcHandlers {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    fn metadata(
        &self,
        request: &ModelMetadataRequest,
    ) -> Result<ModelMetadataResponse, ServeError> {
        let repository = self.service.repository();
        let model = repository.get(&request.name, given(&request.version))?;
        let versions = repository.versions(&request.name)?;
        let tensor = |tensor: metadata::TensorMetadata| TensorMetadata {
            name: tensor.name.into(),
            datatype: tensor.datatype.into(),
            shape: tensor.shape,
        };
        let versions = versions.iter().map(|model| model.version().to_owned());
        Ok(ModelMetadataResponse {
            name: model.name().to_owned(),
            versions: versions.collect(),
            platform: metadata::PLATFORM.into(),
            inputs: metadata::inputs(&model).into_iter().map(tensor).collect(),
            outputs: metadata::outputs(&model).into_iter().map(tensor).collect(),
        })
    }

    /// Runs inference. The caller has already accepted the request.
    async fn infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<ModelInferResponse, ServeError> {
        let timeout = call_timeout(request.metadata())?;
        let message = request.into_inner();
        let version = given(&message.model_version);
        let model = self.service.model(&message.model_name, version)?;
        let parse = move |spec: &_| parse(message, spec);
        let (output, format) = self.service.infer(&model, timeout, parse).await?;
        Ok(respond(format, &model, output))
    }
}
