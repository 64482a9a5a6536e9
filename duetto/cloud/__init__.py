"""The service in the cloud: the large model, feedback, models and their channels, who may connect."""
