"""What the tests share: brokers, proxies, the bridge as a process, the oracle, and programs run by hand."""
