//! Istio documents against the configurations that the builders make.
#![cfg(feature = "istio")]

#[cfg(test)]
mod istio {
    mod authorization;
    mod client_tls;
    mod effective;
    mod hostile;
    mod http_routes;
    mod lenient;
    mod localities;
    mod mtls;
    mod refusals;
    mod routes;
    mod rules;
    mod seeds;
    mod services;

    use mesh_core::{Labels, balance, limit, outlier, retry};
    use mesh_tower::{
        istio::{self, Documents, Unsupported},
        upstream::{self, Policy},
    };

    /// What every upstream of a document starts from: Istio's defaults, with our budget.
    fn policy() -> Policy {
        Policy::default()
            .with_limits(limit::Config::unlimited())
            .with_outlier(outlier::Config::off())
            .with_balance(balance::Config::least_request())
    }

    fn config(name: &str) -> upstream::Config {
        upstream::Config::new(name)
            .with_timeout(None)
            .with_retry(retry::Config::istio())
            .with_policy(policy())
    }

    fn labels(version: &str) -> Labels {
        [("version", version)].into_iter().collect()
    }

    #[track_caller]
    fn read(text: &str) -> Documents {
        istio::read(text, "test.yaml", Unsupported::Error)
            .unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        istio::read(text, "test.yaml", Unsupported::Error).unwrap_err().to_string()
    }

    /// A rule for `shop` in the namespace `default`, its `spec` in one line.
    fn rule(spec: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: rule}}\n\
             spec: {{host: shop, {spec}}}\n---\n"
        )
    }

    /// A virtual service for `shop` with one rule.
    fn service(http: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: service}}\n\
             spec: {{hosts: [shop], http: [{{{http}}}]}}\n---\n"
        )
    }

    const SUBSETS: &str =
        "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]";
}
