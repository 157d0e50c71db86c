"""One LightningModule a file: data flow, reduction, metrics and pictures of an experiment."""
