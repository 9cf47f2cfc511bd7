"""Which model version may be served: rules, comparison, promotion log, report and model card. No MLflow here."""
