"""Two test clients, a demonstration, and the real brokers that they and the tests run against."""
