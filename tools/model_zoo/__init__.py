"""The tables of models: complexity of every config, metafiles and README files."""
