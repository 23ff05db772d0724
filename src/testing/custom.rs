//! What a custom resource is to be: in flow a test's declarations, out comes its kind.

use super::{kinds::Kind, subresources};
use crate::Resource;

/// The declaration of a custom resource; see
/// [`ApiServerBuilder::resource_with`](super::ApiServerBuilder::resource_with).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use kubewire::{Resource, testing::ApiServer};
///
/// let widgets = Resource::namespaced("example.com", "v1", "widgets");
/// let server = ApiServer::builder()
///     .resource_with(widgets, "Widget", |widget| widget.status().short_name("wd"))
///     .start()
///     .await?;
/// # let _ = server;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ResourceBuilder(Kind);

impl ResourceBuilder {
    pub(super) fn new(resource: Resource, kind: &str) -> Self {
        let mut kind = Kind::custom(resource, kind);
        if let Some(custom) = &mut kind.custom {
            custom.scale = Some(subresources::SCALE.map(str::to_owned));
        }
        Self(kind)
    }

    /// Gives it the subresource `status`: then the status can be written there alone.
    pub fn status(mut self) -> Self {
        self.0.subresources.push("status".to_owned());
        self
    }

    /// Gives it the subresource `scale`, of `spec.replicas` and `status.replicas`.
    pub fn scale(mut self) -> Self {
        self.0.subresources.push("scale".to_owned());
        self
    }

    /// Lets field selectors name a field, such as `spec.color`; name and namespace they can.
    pub fn selectable_field(mut self, field: impl Into<String>) -> Self {
        if let Some(custom) = &mut self.0.custom {
            custom.selectable.push(field.into());
        }
        self
    }

    /// Gives it a short name.
    pub fn short_name(mut self, name: impl Into<String>) -> Self {
        self.0.short.push(name.into());
        self
    }

    /// Puts it in a category, such as `all`.
    pub fn category(mut self, name: impl Into<String>) -> Self {
        self.0.categories.push(name.into());
        self
    }

    pub(super) fn into_kind(self) -> Kind {
        self.0
    }
}
