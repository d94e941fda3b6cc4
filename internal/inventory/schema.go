package inventory

import "embed"

// Schema holds the migrations of inventory's tables, for store.Options.
//
//go:embed migrations/*.sql
var Schema embed.FS
