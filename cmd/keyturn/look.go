package main

import "github.com/spf13/cobra"

func lookCommand() *cobra.Command { return &cobra.Command{Use: "look"} }
