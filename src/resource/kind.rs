//! Types that say what they are objects of: in flows a Rust type, out come its resource and where
//! its objects live.

use super::Resource;

/// A type whose resource is known, so that [`Client::api`](crate::Client::api) needs no more.
///
/// With the feature `k8s-openapi` the types of k8s-openapi have it, with `kube` all that are a
/// `kube::Resource` of their own, such as custom resources by `#[derive(CustomResource)]`, and with
/// `k8s-pb` those of k8s-pb in [`Protobuf`](crate::watch::Protobuf). For others it is a few lines, for a struct of the fields that a program reads too:
///
/// ```
/// use kubewire::{Resource, request::{Kind, Namespaced}};
///
/// #[derive(serde::Deserialize)]
/// struct PodPhase {
///     status: Phase,
/// }
///
/// #[derive(serde::Deserialize)]
/// struct Phase {
///     phase: String,
/// }
///
/// impl Kind for PodPhase {
///     type Scope = Namespaced;
///
///     fn resource() -> Resource {
///         Resource::namespaced("", "v1", "pods")
///     }
/// }
/// # async fn run(client: kubewire::Client) -> kubewire::Result<()> {
/// let pod: PodPhase = client.api().namespace("default").get("web-0").await?;
/// # let _ = pod.status.phase;
/// # Ok(())
/// # }
/// ```
///
/// As it has no `Serialize`, it cannot be sent back, which would lose the other fields.
#[diagnostic::on_unimplemented(
    message = "nothing says of which resource `{Self}` is",
    note = "turn the feature `k8s-openapi` or `kube` on, put a type of k8s-pb into \
            `kubewire::watch::Protobuf`, implement `kubewire::request::Kind`, or name \
            the resource: `client.request(Resource::namespaced(..))`"
)]
pub trait Kind: 'static {
    /// Whether its objects live in namespaces: [`Namespaced`] or [`Cluster`].
    type Scope: Scope;

    /// The resource.
    fn resource() -> Resource;

    /// Whether it has nothing but metadata, so that nothing else is asked for and no object can be
    /// made of it: `kube::core::PartialObjectMeta`.
    fn is_metadata() -> bool {
        false
    }
}

/// Where the objects of a type live.
pub trait Scope {
    /// Whether that is a namespace.
    const NAMESPACED: bool;
}

/// The [`Scope`] of objects that live in namespaces, so that one can be named.
///
/// ```
/// use kubewire::{Client, request::{Api, InNamespaces, Kind}};
///
/// fn of_tenant<K: Kind<Scope: InNamespaces>>(client: &Client, tenant: &str) -> Api<K> {
///     client.api().namespace(tenant)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "objects of this type are the cluster's and have no namespace"
)]
pub trait InNamespaces: Scope {}

/// The [`Scope`] of a [`Kind`] whose objects live in namespaces.
#[derive(Debug, Clone, Copy)]
pub enum Namespaced {}

/// The [`Scope`] of a [`Kind`] whose objects are the cluster's.
///
/// ```
/// use kubewire::{Resource, request::{Cluster, Kind}};
///
/// #[derive(serde::Deserialize)]
/// struct Tenant {}
///
/// impl Kind for Tenant {
///     type Scope = Cluster;
///
///     fn resource() -> Resource {
///         Resource::cluster("example.com", "v1", "tenants")
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Cluster {}

impl Scope for Namespaced {
    const NAMESPACED: bool = true;
}

impl InNamespaces for Namespaced {}

impl Scope for Cluster {
    const NAMESPACED: bool = false;
}

#[cfg(feature = "k8s-openapi")]
mod k8s_openapi {
    use ::k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};

    use super::{InNamespaces, Scope};

    impl Scope for NamespaceResourceScope {
        const NAMESPACED: bool = true;
    }

    impl InNamespaces for NamespaceResourceScope {}

    impl Scope for ClusterResourceScope {
        const NAMESPACED: bool = false;
    }

    // Every type that this is for has kube's trait too, so that the feature `kube` takes nothing
    // away.
    #[cfg(not(feature = "kube"))]
    impl<K> super::Kind for K
    where
        K: ::k8s_openapi::Metadata<
                Ty = ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            >,
        K: ::k8s_openapi::Resource<Scope: Scope> + 'static,
    {
        type Scope = <K as ::k8s_openapi::Resource>::Scope;

        fn resource() -> crate::Resource {
            crate::Resource {
                namespaced: Self::Scope::NAMESPACED,
                ..crate::Resource::namespaced(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT)
            }
        }
    }

    #[cfg(feature = "kube")]
    impl<K> super::Kind for K
    where
        K: kube_core::Resource<DynamicType = (), Scope: Scope> + 'static,
    {
        type Scope = <K as kube_core::Resource>::Scope;

        fn resource() -> crate::Resource {
            let (group, version) = (K::group(&()), K::version(&()));
            crate::Resource {
                namespaced: Self::Scope::NAMESPACED,
                ..crate::Resource::namespaced(
                    group.into_owned(),
                    version.into_owned(),
                    K::plural(&()).into_owned(),
                )
            }
        }

        fn is_metadata() -> bool {
            K::metadata_api()
        }
    }
}

#[cfg(feature = "k8s-pb")]
mod k8s_pb {
    use ::k8s_pb::{ClusterResourceScope, NamespaceResourceScope};

    use super::{InNamespaces, Kind, Scope};
    use crate::wire::watch::Protobuf;

    impl Scope for NamespaceResourceScope {
        const NAMESPACED: bool = true;
    }

    impl InNamespaces for NamespaceResourceScope {}

    impl Scope for ClusterResourceScope {
        const NAMESPACED: bool = false;
    }

    impl<M: ::k8s_pb::Resource<Scope: Scope> + 'static> Kind for Protobuf<M> {
        type Scope = M::Scope;

        fn resource() -> crate::Resource {
            crate::Resource {
                namespaced: M::Scope::NAMESPACED,
                ..crate::Resource::namespaced(M::GROUP, M::VERSION, M::URL_PATH_SEGMENT)
            }
        }
    }
}

#[cfg(all(test, feature = "k8s-openapi"))]
mod tests {
    use ::k8s_openapi::api::{apps::v1::Deployment, core::v1 as core};

    use super::*;

    #[test]
    fn types_of_k8s_openapi_know_their_resource() {
        let deployments = Resource::namespaced("apps", "v1", "deployments");
        assert_eq!(Deployment::resource(), deployments);
        let pods = Resource::namespaced("", "v1", "pods");
        assert_eq!(core::Pod::resource(), pods);
        assert_eq!(core::Node::resource(), Resource::cluster("", "v1", "nodes"));
        assert!(!core::Pod::is_metadata());
    }

    #[cfg(feature = "k8s-pb")]
    #[test]
    fn types_of_k8s_pb_know_the_same() {
        use ::k8s_pb::api::{apps, core::v1 as core_pb};

        use crate::wire::watch::Protobuf;

        let deployments = Protobuf::<apps::v1::Deployment>::resource();
        assert_eq!(deployments, Deployment::resource());
        let node = Protobuf::<core_pb::Node>::resource();
        assert_eq!(node, core::Node::resource());
    }

    #[cfg(feature = "kube")]
    #[test]
    fn kubes_metadata_ask_for_no_more() {
        use kube_core::metadata::PartialObjectMeta;

        assert_eq!(
            PartialObjectMeta::<core::Pod>::resource(),
            core::Pod::resource()
        );
        assert!(PartialObjectMeta::<core::Pod>::is_metadata());
    }
}
