//! Which pods something is done in: in flow a namespace, labels and names, out come the options that
//! all builders have which go into many pods.

use super::Client;

#[derive(Debug, Clone)]
pub(super) struct Pods {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) labels: String,
    pub(super) names: Vec<String>,
    pub(super) container: Option<String>,
}

impl Pods {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self {
            client,
            namespace,
            labels: String::new(),
            names: Vec::new(),
            container: None,
        }
    }
}

/// The options of a builder around [`Pods`].
macro_rules! chosen_pods {
    () => {
        setters! {
            /// Only pods whose labels match, such as `app=web`.
            fn labels(selector: impl Into<String>) pods.labels = selector.into();

            /// The container; without, the default one of each pod.
            fn container(name: impl Into<String>) pods.container = Some(name.into());
        }

        /// Only the pods of these names. One that does not exist is an error of its own.
        pub fn pods<I, S>(mut self, names: I) -> Self
        where
            I: IntoIterator<Item = S>,
            S: Into<String>,
        {
            self.pods.names.extend(names.into_iter().map(Into::into));
            self
        }
    };
}
pub(super) use chosen_pods;
