# Completion of seedbed in fish: seedbed completion fish | source
function __seedbed_complete
    seedbed complete (commandline -cp) 2>/dev/null
end
complete -c seedbed -f -a '(__seedbed_complete)'
