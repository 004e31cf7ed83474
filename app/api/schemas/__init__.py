"""The bodies of requests and answers, as they are documented and validated: a module for each resource."""
