# Completion of holo in PowerShell. `holo completion powershell` prints it.
Register-ArgumentCompleter -Native -CommandName holo, holotree -ScriptBlock {
    param($current, $line, $cursor)
    $words = @($line.CommandElements | Where-Object { $_.Extent.StartOffset -lt $cursor } | ForEach-Object { "$_" })
    $program = $words[0]
    $index = $words.Count - 1
    if ($current -ne '') { $index -= 1 }
    $words = @($words | Select-Object -Skip 1)
    # What stands for files and commands is empty: then PowerShell completes by itself.
    & $program __complete $index @words 2>$null | Select-Object -Skip 1 | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        if (-not $help) { $help = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
    }
}
