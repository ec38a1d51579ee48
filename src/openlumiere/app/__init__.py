"""The page, the API and the queue behind `lumiere serve`, its workers, and the MCP server."""
